"""What may be replaced by code of one's own: the protocols, and what they are told."""

from edge_coordinator.job.job import FinishedRound, StopRule
from edge_coordinator.job.standing import Standing
from edge_coordinator.planning.form import ChooseCut, CutTask, GroupDevices, GroupingTask
from edge_coordinator.run.events import (
    ClassesAgreed,
    ClusterStarted,
    Evaluating,
    Observer,
    Progress,
    RoundDone,
    RoundPlanned,
    Waiting,
)
from edge_coordinator.run.trackers.tracker import Tracker
from edge_coordinator.training.aggregation import Aggregate, Models

__all__ = [
    "Aggregate",
    "ChooseCut",
    "ClassesAgreed",
    "ClusterStarted",
    "CutTask",
    "Evaluating",
    "FinishedRound",
    "GroupDevices",
    "GroupingTask",
    "Models",
    "Observer",
    "Progress",
    "RoundDone",
    "RoundPlanned",
    "Standing",
    "StopRule",
    "Tracker",
    "Waiting",
]
