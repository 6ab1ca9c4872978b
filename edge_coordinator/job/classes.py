"""The classes of a job: whose names they are, and what is numbered along them.

They are those that the job lists, or else those of the samples to train on where the coordinator
sees them (in local mode), or else those of its test set, or else those of all devices that are
there when the run begins. Where none of these has names, labels are numbers.
"""

from collections.abc import Iterable

from edge_coordinator.job.job import Job
from edge_coordinator.job.settings import JobSettings
from runtime.datasets.classes import union
from runtime.datasets.samples import Samples, check_labels
from runtime.errors import SettingsError
from runtime.wire.commands import Assignment
from runtime.wire.names import ClassNames, check_names, in_words


def agree_on_classes(
    settings: JobSettings, *, test: Samples | None, train: Samples | None
) -> tuple[JobSettings, Samples | None]:
    """Fill the names in, and number the test set along them.

    SettingsError if a class of `test` or `train` is not among them, or has a number for a name.
    """
    given = settings.data.classes
    parts = [part for part in (train, test) if part is not None]
    named = [part.class_names for part in parts if part.class_names is not None]
    if not given and not named:
        return settings, test
    classes = given or _few_enough(named[0])
    if train is not None:
        train.in_classes(classes, where=settings.data.source, numbers_count=bool(given))
    if test is not None:
        where = f"the test set of {settings.data.test_source}"
        test = test.in_classes(classes, where=where, numbers_count=bool(given))
    data = settings.data.model_copy(update={"classes": classes})
    return settings.model_copy(update={"data": data}), test


def with_classes_of_devices(job: Job, parts: Iterable[ClassNames]) -> Assignment:
    """Give what devices are told once all their classes are known, each of `parts` a device's.

    SettingsError if they are more than a message or the outputs of the network have room for.
    """
    classes = _few_enough(union(parts))
    data = job.settings.data.model_copy(update={"classes": classes})
    settings = job.settings.model_copy(update={"data": data})
    check_outputs(settings, num_outputs=job.assignment.num_classes, train=None)
    return job.assignment.model_copy(update={"classes": classes})


def check_outputs(settings: JobSettings, *, num_outputs: int | None, train: Samples | None) -> None:
    """SettingsError if the classes, or the labels to train on, are more than the outputs."""
    classes = settings.data.classes
    if num_outputs is None:
        return
    if len(classes) > num_outputs:
        raise SettingsError(
            f"there are {len(classes)} classes ({in_words(classes)}), but network "
            f"{settings.model.name} has {num_outputs} outputs; it needs one for each, as by "
            f"model.options.num_classes = {len(classes)}"
        )
    if train is not None and train.class_names is None:
        check_labels(train, num_classes=num_outputs, where=settings.data.source)


def check_test_set(
    test: Samples, settings: JobSettings, *, shape: tuple[int, ...], num_classes: int | None
) -> None:
    """SettingsError if samples or labels of the test set are not such as the job trains on."""
    where = settings.data.test_source
    if test.sample_shape != shape:
        raise SettingsError(
            f"test samples of {where} have the shape {test.sample_shape}; "
            f"those to train on have {shape}"
        )
    if num_classes is not None:
        check_labels(test, num_classes=num_classes, where=f"the test set of {where}")


def _few_enough(classes: ClassNames) -> ClassNames:
    try:
        return check_names(classes)
    except ValueError as error:
        raise SettingsError(str(error)) from error
