"""What a job takes from its samples, once and for all: test set, normalisation, class weights."""

from pathlib import Path

import numpy as np

from edge_coordinator.job.data_settings import NormaliseSettings
from edge_coordinator.job.settings import JobSettings
from runtime.datasets.normalise import measure_features, normalised
from runtime.datasets.samples import DataSet, Samples
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.offered import FILE_SOURCES
from runtime.wire.commands import MAX_FEATURES
from runtime.wire.names import FeatureNames, why_other_features


def whole_test_set(
    settings: JobSettings, *, base_dir: Path, data: DataSet | None
) -> Samples | None:
    """All samples that a job may be tested on; None where its devices evaluate."""
    if settings.data.test == "devices":
        return None
    if settings.data.test != "source":
        other = load_source(settings.data.test, base_dir=base_dir)
        return other.test or other.train
    source = data or load_source(settings.data.source, base_dir=base_dir)
    if source.test is None:
        raise SettingsError(
            f"data.source {settings.data.source} has no test set; set data.test to 'devices' or to "
            f"another source{_by_option(settings.data.source)}"
        )
    return source.test


def _by_option(source: str) -> str:
    """Say how a source has a part to test on, if it is from files."""
    scheme, _, rest = source.partition(":")
    if scheme not in FILE_SOURCES or scheme == "mnist":
        return ""
    return f", or add {'&' if '?' in rest else '?'}test=0.2 to its name"


def some_of(whole: Samples | None, most: int | None) -> Samples | None:
    """Take at most so many of the test samples, evenly spaced."""
    if whole is None or most is None or most >= len(whole):
        return whole
    return whole.take(np.linspace(0, len(whole), most, endpoint=False).astype(np.int64))


def agree_on_inputs(
    settings: JobSettings, *, test: Samples | None, train: Samples | None
) -> tuple[JobSettings, Samples | None]:
    """Fill in what inputs are called and how they are normalised, and bring the test set to it."""
    settings = _agree_on_features(settings, test=test, train=train)
    return _agree_on_normalisation(settings, test=test, train=train)


def _agree_on_features(
    settings: JobSettings, *, test: Samples | None, train: Samples | None
) -> JobSettings:
    """Fill the names of the columns in; SettingsError if those of the samples are others."""
    parts = {settings.data.source: train, f"the test set of {settings.data.test_source}": test}
    named = {w: part.feature_names for w, part in parts.items() if part and part.feature_names}
    features = settings.data.features or next(iter(named.values()), ())
    for where, names in named.items():
        if why := why_other_features(
            FeatureNames.of(names), FeatureNames.of(features), of="the job"
        ):
            raise SettingsError(f"{where}: {why}")
    few = features if len(features) <= MAX_FEATURES else ()
    data = settings.data.model_copy(update={"features": few})
    return settings.model_copy(update={"data": data})


def _agree_on_normalisation(
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


def agree_on_class_weights(
    settings: JobSettings, *, test: Samples | None, train: Samples | None, num_outputs: int | None
) -> JobSettings:
    """Fill in weights by which all classes count alike; SettingsError where nobody can say them."""
    weights, key = settings.training.class_weights, "training.class_weights"
    if not weights:
        return settings
    if num_outputs is None:
        raise SettingsError(f"{key} are of classes, and a sample of this job has no single class")
    if weights == "balanced":
        seen = train or test
        if seen is None:
            raise SettingsError(
                f"{key} = 'balanced' needs labels where the coordinator is, and only the devices "
                "have any: list what each class counts"
            )
        if settings.data.classes:
            where = settings.data.source
            seen = seen.in_classes(settings.data.classes, where=where, numbers_count=True)
        weights = _balanced(seen, num_outputs)
        training = settings.training.model_copy(update={"class_weights": weights})
        return settings.model_copy(update={"training": training})
    if len(weights) != num_outputs:
        raise SettingsError(
            f"{key} has {len(weights)} numbers, and the network {num_outputs} outputs: it takes "
            "one for each, in their order"
        )
    return settings


def _balanced(seen: Samples, num_classes: int) -> tuple[float, ...]:
    """Give N / (C N_c), whose mean over the samples is 1; classes that are not there count 1."""
    labels = seen.y.astype(np.int64)
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    num_seen = np.count_nonzero(counts)
    return tuple(float(len(seen) / (num_seen * each)) if each else 1.0 for each in counts)
