"""The normalisation of a job: measured once, where there are samples, and the same for all."""

from edge_coordinator.job.normalise_settings import NormaliseSettings
from edge_coordinator.job.settings import JobSettings
from runtime.datasets.normalise import measure_features, normalised
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError


def agree_on_normalisation(
    settings: JobSettings, *, test: Samples | None, train: Samples | None
) -> tuple[JobSettings, Samples | None]:
    """Fill the figures in, and bring the test set to them."""
    if settings.data.normalise.by == "data":
        seen = train or test
        if seen is None:
            raise SettingsError(
                "data.normalise.by = 'data' needs samples where the coordinator is, and only the "
                "devices have any: take 'given', with data.normalise.mean and deviation"
            )
        fields = measure_features(seen).model_dump()
        normalise = NormaliseSettings.model_validate({**fields, "by": "given"})
        data = settings.data.model_copy(update={"normalise": normalise})
        settings = settings.model_copy(update={"data": data})
    by, source = settings.data.normalise.normalisation(), settings.data.source
    if train is not None:
        normalised(train, by, where=source)
    if test is None:
        return settings, None
    return settings, normalised(test, by, where=f"the test set of {settings.data.test_source}")
