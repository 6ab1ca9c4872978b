"""A run as lines of JSON, one an event: what docs/scripting.md explains."""

from dataclasses import asdict

from edge_coordinator.cli.output import Output
from edge_coordinator.run import events as run_events


class EventLines:
    """Writes what happens in a run, as it happens; an observer of the run."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def tell(self, progress: run_events.Progress) -> None:
        """Write it down."""
        match progress:
            case run_events.RoundPlanned(plan, num_rounds):
                fields = {"num_rounds": num_rounds, "plan": plan.model_dump(mode="json")}
                self._output.event("plan", fields)
            case run_events.RoundDone(report):
                self._output.event("round", report.model_dump(mode="json"))
            case run_events.Waiting():
                self._output.event("waiting", asdict(progress))
            case run_events.ClassesAgreed():
                self._output.event("classes", asdict(progress))
            case run_events.ClusterStarted():
                self._output.event("cluster", asdict(progress))
            case run_events.Evaluating():
                self._output.event("evaluating", asdict(progress))
            case run_events.Stopped():
                self._output.event("stopped", asdict(progress))
