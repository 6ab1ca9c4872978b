"""What `cpsl infer` does: a model is cut, and predicts, is written down, or is served."""

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
    from edge_coordinator.training.computing.accelerator import Accelerator
    from runtime.datasets.inputs import Asked
    from runtime.datasets.samples import Shape


def infer(flags: argparse.Namespace, console: Output) -> None:
    """Predict the samples of a source, export both halves, or serve the server half."""
    _check_asked(flags)
    if not _is_run(flags.model, needs_device=not flags.serve):
        _by_files(flags, console)
        return
    settings = _settings(flags, needs_judge=flags.data is not None)
    taken = _stated_shape(flags)
    asked = _asked(flags, console, settings.data.features, taken)
    shape = asked.samples.sample_shape if asked else None
    model = _saved(flags, settings, shape, console)
    cut = model.cut(flags.cut if flags.cut is not None else _last_cut(flags.model))
    written = _export(flags.export, model, cut, console) if flags.export else []
    if flags.serve:
        _serve_run(flags, console, model, cut)
    elif asked is None:
        info = model.info(cut)
        document = {"network": info.network, "cut": info.cut, "files": [str(p) for p in written]}
        listed = ", ".join(str(path) for path in written)
        console.answer(document, f"both halves, cut after {info.cut}: {listed}")
    else:
        _predict_by_run(flags, console, model, cut, asked)


def _check_asked(flags: argparse.Namespace) -> None:
    if flags.serve and flags.data is not None:
        raise SettingsError("--serve has devices bring the samples; leave --data out")
    if not flags.serve and flags.data is None and flags.export is None:
        raise SettingsError(
            "what of? give --data SOURCE to predict, --export FOLDER to write both halves, or "
            "--serve to compute the server half for devices"
        )
    if flags.device != "cpu" and not flags.serve and flags.data is None:
        raise SettingsError("--device is for what is computed, and --export computes nothing")


def _predict_by_run(
    flags: argparse.Namespace, console: Output, model: "SavedModel", cut: int, asked: "Asked"
) -> None:
    from edge_coordinator.cli.inference.predicting import judge_of_job
    from edge_coordinator.run.model.halves import split_saved

    with console.status("writing the device half"):
        split = split_saved(model, cut, _accelerator(flags))
    _predict(flags, console, split, asked, judge_of_job(model.settings))


def _serve_run(flags: argparse.Namespace, console: Output, model: "SavedModel", cut: int) -> None:
    from edge_coordinator.cli.inference.serving import ServedHalf, serve_half
    from edge_coordinator.run.model.halves import TorchHalf
    from runtime.models.load import split

    info = model.info(cut)
    half = TorchHalf(split(model.network, cut)[1], _accelerator(flags))
    serve_half(flags, console, ServedHalf(info, half, model.shapes[cut], model.shapes[-1]))


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


def _by_files(flags: argparse.Namespace, console: Output) -> None:
    """Predict by exported halves, or serve that of the server."""
    for flag, value in {"--cut": flags.cut, "--export": flags.export}.items():
        if value is not None:
            raise SettingsError(
                f"{flag} is for the directory of a run; {flags.model} holds halves that are cut "
                "already"
            )
    if flags.device != "cpu":
        raise SettingsError(
            f"--device {flags.device} is for the directory of a run, where PyTorch has the server "
            f"half; those of {flags.model} run on ONNX Runtime, on the processor"
        )
    if flags.serve:
        from edge_coordinator.cli.inference.serving import ServedHalf, serve_half
        from runtime.inference.half import OnnxHalf, file_of

        half = OnnxHalf.load(flags.model / file_of("server"), "server")
        serve_half(
            flags, console, ServedHalf(half.info, half, half.sample_shape, half.output_shape)
        )
        return
    from edge_coordinator.cli.inference.predicting import judge_of_info
    from edge_coordinator.run.model.halves import load_halves

    split = load_halves(flags.model)
    asked = _asked(flags, console, split.info.features, split.device.sample_shape)
    assert asked is not None
    _predict(flags, console, split, asked, judge_of_info(split.info))


def _is_run(path: Path, *, needs_device: bool) -> bool:
    """Whether it is the directory of a run; SettingsError if it is no folder of halves either."""
    from runtime.inference.half import file_of

    if (path / "job.toml").is_file():
        return True
    needed = [file_of("device"), file_of("server")] if needs_device else [file_of("server")]
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise SettingsError(
            f"{path} is neither the directory of a run, with a job.toml, nor a folder of both "
            f"halves: it has no {' and no '.join(missing)}"
        )
    return False


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


def _asked(
    flags: argparse.Namespace, console: Output, features: Sequence[str], shape: "Shape | None"
) -> "Asked | None":
    from runtime.datasets.inputs import load_asked
    from runtime.inference.predictions import check_suffix

    if flags.data is None:
        return None
    if flags.output is not None:
        check_suffix(flags.output.suffix)
    with console.status(f"reading {flags.data}"):
        return load_asked(
            flags.data, part=flags.part, base_dir=Path.cwd(), features=features, shape=shape
        )


def _saved(
    flags: argparse.Namespace,
    settings: "JobSettings",
    data_shape: "Shape | None",
    console: Output,
) -> "SavedModel":
    from edge_coordinator.run.model.saved import load_saved

    with console.status("building the network"):
        return load_saved(
            _weights(flags),
            settings,
            base_dir=Path.cwd(),
            data_shape=data_shape,
        )


def _stated_shape(flags: argparse.Namespace) -> "Shape | None":
    from edge_coordinator.run.model.saved import stated_shape

    return stated_shape(_weights(flags))


def _weights(flags: argparse.Namespace) -> Path:
    path: Path = flags.model / f"{flags.weights}.safetensors"
    return path


def _accelerator(flags: argparse.Namespace) -> "Accelerator":
    from edge_coordinator.training.computing.accelerator import open_accelerator

    return open_accelerator(flags.device, said_by="--device", autocast="none", compiles=False)


def _last_cut(run: Path) -> str:
    from edge_coordinator.run.model.saved import last_cut

    return last_cut(run)


def _export(folder: Path, model: "SavedModel", cut: int, console: Output) -> list[Path]:
    from edge_coordinator.run.model.halves import export_halves

    with console.status("writing both halves"):
        return export_halves(model, cut, folder)
