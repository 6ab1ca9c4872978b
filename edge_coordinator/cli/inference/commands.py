"""What `cpsl infer` does: a model is cut, and predicts; nothing of it needs a broker."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_coordinator.cli.output import Output
from runtime.errors import SettingsError
from runtime.plugins import AllowedCode

if TYPE_CHECKING:
    from edge_coordinator.cli.inference.predicting import Judge
    from edge_coordinator.job.settings import JobSettings
    from edge_coordinator.run.model.halves import SplitModel
    from edge_coordinator.run.model.saved import SavedModel
    from runtime.datasets.inputs import Asked
    from runtime.datasets.samples import Shape


def infer(flags: argparse.Namespace, console: Output) -> None:
    """Predict the samples of a source, or export both halves, or both."""
    if flags.data is None and flags.export is None:
        raise SettingsError(
            "what of? give --data SOURCE to predict, or --export FOLDER to write both halves"
        )
    is_run = _is_run(flags.model)
    settings = _settings(flags, needs_judge=flags.data is not None) if is_run else None
    asked = _asked(flags, console)
    if settings is None:
        _refuse_flags_of_runs(flags)
        _predict_by_files(flags, console, asked)
        return
    shape = asked.samples.sample_shape if asked else None
    model = _saved(flags, settings, shape, console)
    cut = model.cut(flags.cut if flags.cut is not None else _last_cut(flags.model))
    written = _export(flags.export, model, cut, console) if flags.export else []
    if asked is None:
        info = model.info(cut)
        document = {"network": info.network, "cut": info.cut, "files": [str(p) for p in written]}
        console.answer(document, f"both halves, cut after {info.cut}: {_listed(written)}")
        return
    from edge_coordinator.cli.inference.predicting import judge_of_job
    from edge_coordinator.run.model.halves import split_saved

    with console.status("writing the device half"):
        split = split_saved(model, cut)
    _predict(flags, console, split, asked, judge_of_job(settings))


def _predict(
    flags: argparse.Namespace,
    console: Output,
    split: "SplitModel",
    asked: "Asked",
    judge: "Judge | None",
) -> None:
    from edge_coordinator.cli.inference.predicting import predict
    from edge_coordinator.cli.inference.results import show

    result = predict(split, asked, judge, batch_size=flags.batch_size, console=console)
    show(console, split, result, output=flags.output)


def _predict_by_files(flags: argparse.Namespace, console: Output, asked: "Asked | None") -> None:
    from edge_coordinator.cli.inference.predicting import judge_of_info
    from edge_coordinator.run.model.halves import load_halves

    split = load_halves(flags.model)
    assert asked is not None
    _predict(flags, console, split, asked, judge_of_info(split.info))


def _is_run(path: Path) -> bool:
    """Whether it is the directory of a run; SettingsError if it is no folder of halves either."""
    from runtime.inference.half import SIDES, file_of

    if (path / "job.toml").is_file():
        return True
    missing = [file_of(side) for side in SIDES if not (path / file_of(side)).is_file()]
    if missing:
        raise SettingsError(
            f"{path} is neither the directory of a run, with a job.toml, nor a folder of both "
            f"halves: it has no {' and no '.join(missing)}"
        )
    return False


def _refuse_flags_of_runs(flags: argparse.Namespace) -> None:
    given = {"--cut": flags.cut, "--export": flags.export}
    for flag, value in given.items():
        if value is not None:
            raise SettingsError(
                f"{flag} is for the directory of a run; {flags.model} holds halves that are cut "
                "already"
            )


def _settings(flags: argparse.Namespace, *, needs_judge: bool) -> "JobSettings":
    """Read the run's job; SettingsError if it names code that nobody allowed now."""
    from edge_coordinator.job.file import load_job

    path = flags.model / "job.toml"
    settings = load_job(path, {})
    named = [settings.model.name]
    if needs_judge:
        named += [settings.training.loss, settings.evaluation.metric]
    allowed = AllowedCode(tuple(flags.allow_code))
    for name in named:
        allowed.check(name, what=f"in {path},", to_allow="add", base_dir=Path.cwd())
    return settings


def _asked(flags: argparse.Namespace, console: Output) -> "Asked | None":
    from runtime.datasets.inputs import load_asked
    from runtime.inference.predictions import check_suffix

    if flags.data is None:
        return None
    if flags.output is not None:
        check_suffix(flags.output.suffix)
    with console.status(f"reading {flags.data}"):
        return load_asked(flags.data, part=flags.part, base_dir=Path.cwd())


def _saved(
    flags: argparse.Namespace,
    settings: "JobSettings",
    data_shape: "Shape | None",
    console: Output,
) -> "SavedModel":
    from edge_coordinator.run.model.saved import load_saved

    with console.status("building the network"):
        return load_saved(
            flags.model / f"{flags.weights}.safetensors",
            settings,
            base_dir=Path.cwd(),
            data_shape=data_shape,
        )


def _last_cut(run: Path) -> str:
    from edge_coordinator.run.model.saved import last_cut

    return last_cut(run)


def _export(folder: Path, model: "SavedModel", cut: int, console: Output) -> list[Path]:
    from edge_coordinator.run.model.halves import export_halves

    with console.status("writing both halves"):
        return export_halves(model, cut, folder)


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)
