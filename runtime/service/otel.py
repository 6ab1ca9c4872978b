"""Spans as OpenTelemetry has them: batched in a thread, and sent where the user said, or written.

Only what `runtime.service.spans` records; nothing is instrumented by itself.
"""

import base64
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.json_format import MessageToDict
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from runtime.addresses import without_password
from runtime.distribution import own_version
from runtime.errors import SettingsError, StorageError
from runtime.service.spans import Recorder, Span

MOST_WAITING = 20_000
"""Spans that wait for the exporter; of more, the rest is lost rather than the training slowed."""
_TIMEOUT_S = 5.0
_TRACES = "/v1/traces"


log = logging.getLogger(__name__)


@contextmanager
def open_recorder(target: str, *, program: str) -> Iterator[Recorder]:
    """Record into `target` for the length of the block; what is left is written at its end."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # What it says, we say once.
    recorder = OtelRecorder(_ToldOnce(_exporter(target), without_password(target)), program=program)
    try:
        yield recorder
    finally:
        recorder.close()


class OtelRecorder:
    """Hands spans with ids of ours to OpenTelemetry."""

    def __init__(self, exporter: SpanExporter, *, program: str) -> None:
        self._ids = _GivenIds()
        self._lock = threading.Lock()
        """Around the ids of the next span."""
        resource = Resource.create({"service.name": program, "service.version": own_version()})
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MOST_WAITING))
        self._tracer = self._provider.get_tracer("cpsl", own_version())

    def take(self, span: Span) -> None:
        """Keep a span."""
        context = None
        if span.parent_id is not None:
            parent = trace.SpanContext(
                span.trace_id, span.parent_id, is_remote=True, trace_flags=_SAMPLED
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        with self._lock:
            self._ids.trace_id, self._ids.span_id = span.trace_id, span.span_id
            started = self._tracer.start_span(
                span.name,
                context=context or trace.set_span_in_context(trace.INVALID_SPAN),
                attributes=dict(span.attributes),
                start_time=span.start_unix_ns,
            )
        started.end(span.end_unix_ns)

    def close(self) -> None:
        """Send what is left; a receiver that is not there is not waited for long."""
        self._provider.shutdown()


_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)


class _GivenIds(IdGenerator):  # type: ignore[misc]
    """Gives the ids of the span that begins."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id: int | None = None
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        """Give the span's, or any where none is wanted."""
        return self._random.generate_span_id() if self.span_id is None else self.span_id

    def generate_trace_id(self) -> int:
        """Give the trace's."""
        return self.trace_id


class LinesExporter(SpanExporter):  # type: ignore[misc]
    """Appends to a file: on each line a request of OTLP as JSON, as its file format has it."""

    def __init__(self, path: Path) -> None:
        """Open it; StorageError if that cannot be."""
        try:
            # Several processes append to one file: each line is one write.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise StorageError(f"--spans cannot write {path}: {error.strerror}") from error

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write some spans."""
        line = json.dumps(
            _with_hex_ids(MessageToDict(encode_spans(spans), use_integers_for_enums=True))
        )
        try:
            self._file.write(f"{line}\n".encode())
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


class _ToldOnce(SpanExporter):  # type: ignore[misc]
    """Says in one line that spans are lost, and does what another does."""

    def __init__(self, inner: SpanExporter, where: str) -> None:
        self._inner, self._where = inner, where
        self._is_told = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send some spans."""
        result = self._inner.export(spans)
        has_failed = result is not SpanExportResult.SUCCESS
        if has_failed and not self._is_told:
            log.warning("%s takes no spans; all else goes on, and they are lost", self._where)
        self._is_told = has_failed
        return result

    def shutdown(self) -> None:
        """End."""
        self._inner.shutdown()


def _exporter(target: str) -> SpanExporter:
    place = urlsplit(target)
    if place.scheme in ("http", "https"):
        if not place.hostname:
            raise SettingsError(f"--spans {target}: give a host, as http://127.0.0.1:4318")
        url = place if place.path.strip("/") else place._replace(path=_TRACES)
        return OTLPSpanExporter(endpoint=url.geturl(), timeout=_TIMEOUT_S)
    if "://" in target:
        raise SettingsError(
            f"--spans {target}: give an OTLP receiver, as http://127.0.0.1:4318, or a file"
        )
    return LinesExporter(Path(target))


def _with_hex_ids(tree: Any) -> Any:  # noqa: ANN401 - any part of a document
    """Write ids as OTLP's JSON does: hexadecimal, where protobuf's own has base64."""
    if isinstance(tree, dict):
        parts = {name: _with_hex_ids(value) for name, value in tree.items()}
        ids = [name for name in parts if name in ("traceId", "spanId", "parentSpanId")]
        return parts | {name: base64.b64decode(parts[name]).hex() for name in ids}
    return [_with_hex_ids(part) for part in tree] if isinstance(tree, list) else tree
