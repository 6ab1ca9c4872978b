"""Spans as OpenTelemetry's own exporters see them, and what is said where they cannot go."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runtime.errors import EdgeError
from runtime.service.otel import OtelRecorder
from runtime.service.span_target import spans_to
from runtime.service.spans import Span, part_of, recorded_by, step_id, trace_id, turn_id
from runtime.wire.frames import StepId
from tests.outside.ports import free_port

STEP = StepId(run=7, round=3, cluster=1, epoch=0)


def test_ids_times_and_attributes_arrive_as_they_were_given() -> None:
    exporter = InMemorySpanExporter()
    recorder = OtelRecorder(exporter, program="cpsl-agent")
    of_round, step, turn = trace_id(7, 3), step_id(STEP), turn_id(STEP)
    with recorded_by(recorder):
        recorder.take(Span("turn", of_round, 5, 9, {}, turn))
        recorder.take(Span("step", of_round, 6, 8, {"epoch": 0}, step, turn))
        part_of(STEP, "forward", seconds=0.5, attributes={"device": "pi-1"})
    recorder.close()
    root, below, part = exporter.get_finished_spans()
    assert (root.context.trace_id, root.context.span_id, root.parent) == (of_round, turn, None)
    assert (below.context.trace_id, below.context.span_id) == (of_round, step)
    assert (below.parent.span_id, below.start_time, below.end_time) == (turn, 6, 8)
    assert (below.attributes, part.attributes) == ({"epoch": 0}, {"device": "pi-1"})
    assert (part.parent.span_id, part.end_time - part.start_time) == (step, 500_000_000)
    assert part.context.span_id not in (step, turn)
    assert root.resource.attributes["service.name"] == "cpsl-agent"


def test_a_file_holds_requests_of_otlp_line_by_line_from_several_processes(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    for program in ("cpsl", "cpsl-agent"):
        with spans_to(str(path), program=program):
            part_of(STEP, "forward", seconds=0.1, attributes={"device": "pi-1", "bytes": 3})
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    spans = [line["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in lines]
    assert [span["traceId"] for span in spans] == [f"{trace_id(7, 3):032x}"] * 2
    assert [span["parentSpanId"] for span in spans] == [f"{step_id(STEP):016x}"] * 2
    assert spans[0]["kind"] == 1
    assert {"key": "bytes", "value": {"intValue": "3"}} in spans[0]["attributes"]


def test_a_receiver_gets_requests_of_otlp_at_the_path_that_otlp_says() -> None:
    taken: list[tuple[str, ExportTraceServiceRequest]] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        with spans_to(f"http://127.0.0.1:{server.server_port}", program="cpsl"):
            part_of(STEP, "server", seconds=0.1, attributes={})
        server.shutdown()
        serving.join()
    ((path, request),) = taken
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert (path, span.name) == ("/v1/traces", "server")
    assert span.trace_id == trace_id(7, 3).to_bytes(16, "big")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("mqtt://h:1", "give an OTLP receiver, as http://127.0.0.1:4318, or a file"),
        ("http://", "give a host"),
        ("no/such/folder/spans.jsonl", "cannot write no/such/folder/spans.jsonl"),
    ],
)
def test_where_spans_cannot_go_is_said_before_anything_begins(target: str, why: str) -> None:
    with pytest.raises(EdgeError, match=why), spans_to(target, program="cpsl"):
        raise AssertionError("it began")


@pytest.mark.faults
def test_a_receiver_that_is_not_there_is_told_of_once_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        spans_to(f"http://me:secret@127.0.0.1:{free_port()}", program="cpsl"),
    ):
        part_of(STEP, "forward", seconds=0.1, attributes={})
    (line,) = caplog.messages
    assert "takes no spans; all else goes on" in line
    assert "secret" not in line
