"""What a job names that is neither built in nor a file: code of its user's own."""

from edge_coordinator.job.settings import JobSettings
from runtime.offered import is_factory


def own_code(settings: JobSettings) -> list[str]:
    """Networks, losses, data sources and all else that is named as `package.module:name`."""
    training, evaluation = settings.training, settings.evaluation
    of_training = [settings.model.name, training.loss, training.aggregation]
    of_plans = [settings.plan.grouping, settings.plan.own_cut]
    named = [*of_training, evaluation.metric, evaluation.stop or "", *of_plans]
    data = (settings.data.source, settings.data.test)
    return [name for name in named if ":" in name] + [name for name in data if is_factory(name)]


def code_flags(settings: JobSettings) -> list[str]:
    """Flags that let another program run this job's own code."""
    return [word for name in own_code(settings) for word in ("--allow-code", name)]
