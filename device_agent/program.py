"""What `cpsl-agent` does once its flags are read."""

import argparse
import asyncio
import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping

from device_agent.limits import Limits
from device_agent.profiling.machine import memory_sentence
from device_agent.settings import AgentSettings, parse_shard
from runtime.bus.broker_url import TlsFiles
from runtime.errors import EdgeError, SettingsError, root_cause
from runtime.offered import ONNX_ENGINE
from runtime.plugins import AllowedCode
from runtime.service.exit_codes import ExitCode
from runtime.service.logs import log_handler
from runtime.service.process import (
    COMPUTE_THREAD,
    end_despite_threads,
    keep_freed_memory,
    until_reader_leaves,
)
from runtime.service.span_target import spans_to
from runtime.wire.topics import check_name

_PATIENCE_S = 2.0
"""With a computation that runs still, once all is over."""

log = logging.getLogger("cpsl-agent")


def run_program(flags: argparse.Namespace, action: str) -> int:
    """Serve, measure or predict; the program's exit code."""
    code = _run(flags, action)
    end_despite_threads(COMPUTE_THREAD, code, patience_s=_PATIENCE_S)
    return code


def _run(flags: argparse.Namespace, action: str) -> int:
    as_json = flags.log_format == "json" or (flags.json and action == "serve")
    handler = log_handler("json" if as_json else "text")
    logging.basicConfig(level=_log_level(flags).upper(), handlers=[handler])
    keep_freed_memory(of_clusters=False)
    try:
        _WORK[action](flags)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (EdgeError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, EdgeError):
            raise
        print(f"cpsl-agent: {cause}", file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.DONE


def _log_level(flags: argparse.Namespace) -> str:
    level: str = flags.log_level
    return "warning" if flags.quiet and level in {"debug", "info"} else level


def _serve(flags: argparse.Namespace) -> None:
    settings = agent_settings(flags)
    from device_agent.host import serve_devices
    from device_agent.settings import load_samples

    samples = load_samples(settings)
    with spans_to(flags.spans, program="cpsl-agent"):
        asyncio.run(serve_devices(settings, samples))
    log.info("%s", memory_sentence())


def _profile(flags: argparse.Namespace) -> None:
    from device_agent.profile_command import ProfileSettings, measure_device

    settings = ProfileSettings(
        device=check_name("device id", flags.id),
        site=flags.site,
        model=flags.model,
        batch_size=flags.batch_size,
        engine=_engine(flags),
        num_threads=flags.threads,
        broker=flags.broker,
        chunk_bytes=flags.chunk_bytes,
        tls=_tls(flags),
    )
    text, as_json = asyncio.run(measure_device(settings))
    with until_reader_leaves():
        print(as_json if flags.json else text)


def _infer(flags: argparse.Namespace) -> None:
    from device_agent.inference.command import infer

    said = infer(flags, _tls(flags))
    if said:
        with until_reader_leaves():
            print(said)


_WORK: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "serve": _serve,
    "profile": _profile,
    "infer": _infer,
}


def agent_settings(flags: argparse.Namespace) -> AgentSettings:
    """Turn the flags of an agent into its settings."""
    return AgentSettings(
        broker=flags.broker,
        site=flags.site,
        devices=tuple(flags.id),
        data=flags.data,
        shards=tuple(parse_shard(text) for text in flags.shard),
        partition=flags.partition,
        seed=flags.seed,
        engine=_engine(flags),
        num_threads=flags.threads,
        chunk_bytes=flags.chunk_bytes,
        scenario=flags.scenario,
        watch_data_s=flags.watch_data,
        publish_labels=flags.publish_labels,
        tls=_tls(flags),
        wait=flags.wait,
        end_with_stdin=flags.end_with_stdin,
        health_file=flags.health_file,
        limits=_limits(flags),
        log_level=_log_level(flags),
    )


def _limits(flags: argparse.Namespace) -> Limits:
    if flags.min_cut and not flags.min_cut.isdecimal() and _engine(flags) == ONNX_ENGINE:
        raise SettingsError(
            f"--min-cut {flags.min_cut}: without PyTorch this device does not know the layers by "
            "name; give their number, as --min-cut 3"
        )
    code = AllowedCode(tuple(flags.allow_code))
    return Limits(code, flags.max_memory, flags.max_step_flop, flags.min_cut or "")


def _engine(flags: argparse.Namespace) -> str:
    has_torch = importlib.util.find_spec("torch") is not None
    engine: str = flags.engine or ("torch" if has_torch else ONNX_ENGINE)
    return engine


def _tls(flags: argparse.Namespace) -> TlsFiles:
    return TlsFiles(flags.cafile, flags.certfile, flags.keyfile)
