"""A run's spans: what they are called, when they were, and that a real collector gets all of them, time and again."""

from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
import uvicorn
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentlab import semconv
from agentlab.cli_export import runs_export
from agentlab.errors import AgentlabError, BackendError
from agentlab.otlp import MOST_SPANS, send, write
from agentlab.otlp_spans import Span, read_spans
from agentlab.trace import Record, TraceError, dump, read
from agentlab.words import UsageError

MADE = 1_700_000_000
"""When the run was made, in seconds since 1970."""

SECRET = "hush-hush-0123"  # noqa: S105 -- made up

RUN: Record = {"kind": "run", "schema": 1, "task": "toy", "seed": 3, "budget": {"candidates": 8, "usd": None}}
REPLY: Record = {
    "kind": "reply",
    "call": 7,
    "asked": 64,
    semconv.OPERATION: semconv.CHAT,
    semconv.MODEL: "m",
    semconv.TEMPERATURE: 0.8,
    semconv.SEED: 2**70,
    semconv.INPUT_TOKENS: 900,
    semconv.OUTPUT_TOKENS: 300,
    semconv.FINISH: ["stop"],
    semconv.INPUT_MESSAGES: [{"role": "user", "parts": [{"type": "text", "content": "secret prompt"}]}],
    semconv.OUTPUT_MESSAGES: [{"role": "assistant", "parts": [{"type": "text", "content": "secret reply"}]}],
    "drafts": [["a*x", "k", "rewrite", [], "secret idea"]],
    "rejects": [["no JSON", "secret words"], ["seen before", "secret too"]],
    "usd": 0.0012,
}
DECISION: Record = {
    "kind": "decision",
    "block": 2,
    "question": "parents",
    "key": [0, 1],
    "tally": [{"rung": 0, "votes": [[[0, 1], 3], [[0, 2], 1]]}],
    "tokens": {"in": 40, "out": 8},
}


def entry(number: int, **more: Any) -> Record:
    made = {
        "kind": "entry",
        "id": number,
        "tool": "fit.laws",
        "formula": f"a + {number}*x",
        "parents": [],
        "status": "ok",
    }
    return made | {"objective": "inf", "dev": {"r2": 0.5, "n": 4}, "params": {"all": {"y": {"a": 1.5}}}} | more


RECORDS: list[Record] = [
    RUN,
    REPLY,
    entry(0),
    entry(1),
    REPLY | {"call": 8, "failed": "rate limit", "usd": 0.0},
    DECISION,
    entry(2),
    entry(3, status="rejected", reason="seen before"),
    entry(4),
    {"kind": "lost", "calls": [9], "tokens": 1200, "usd": 0.01},
    {"kind": "stop", "reason": "no gain", "asked": 5},
    {"kind": "finalist", "entry": 0},
    {"kind": "law", "entry": 4, "formula": "a + 4*x"},
]
NOTES = [
    {"call": 7, "began": 0.5, "took": 1.25, "seconds": 1.75},
    {"committed": 2, "seconds": 2.0},
    {"committed": 4, "seconds": 5.5},
    {"committed": 4, "seconds": 9.0},
]
SPANS = 9


def make(folder: Path, records: list[Record] = RECORDS, notes: list[Record] = NOTES) -> Path:
    """A run's folder."""
    folder.mkdir(parents=True)
    (folder / "trace.jsonl").write_bytes(b"".join(dump(r) for r in records))
    if notes:
        (folder / "timing.jsonl").write_bytes(b"".join(dump(n) for n in notes))
    (folder / "config.json").write_text("{}")
    os.utime(folder / "config.json", (MADE, MADE))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make(tmp_path / "toy-001")


def seconds(span: Span) -> tuple[float, float]:
    """When a span was, counted from when the run was made."""
    return (span.start - MADE * 10**9) / 1e9, (span.end - MADE * 10**9) / 1e9


# ---- what the spans are ----


def test_a_run_is_an_agent_whose_calls_votes_and_candidates_are_its_children(run: Path) -> None:
    spans = list(read_spans(run))
    assert [s.name for s in spans] == [
        *("chat m", "execute_tool fit.laws", "execute_tool fit.laws", "chat m", "decide parents"),
        *(["execute_tool fit.laws"] * 3),
        "chat",
        "invoke_agent agentlab",
    ]
    assert spans[-1].parent == b""
    assert {s.parent for s in spans[:-1]} == {spans[-1].id}
    assert len({s.id for s in spans}) == len(spans) == SPANS + 1
    assert [s.name for s in spans if s.client] == ["chat m", "chat m", "chat"]
    assert [s.failed for s in spans if s.failed] == ["rate limit", "lost"]


def test_the_conventions_names_go_over_as_they_are_and_messages_as_json(run: Path) -> None:
    told = next(read_spans(run)).attributes
    same = (semconv.OPERATION, semconv.MODEL, semconv.TEMPERATURE, semconv.INPUT_TOKENS, semconv.FINISH)
    assert {k: told[k] for k in same} == {k: REPLY[k] for k in same}
    assert json.loads(str(told[semconv.INPUT_MESSAGES])) == REPLY[semconv.INPUT_MESSAGES]
    assert told["agentlab.rejects"] == ["no JSON", "seen before"]
    assert told["agentlab.usd"] == 0.0012
    assert told[semconv.SEED] == str(2**70), "more than OTLP has bits for"


def test_without_content_nothing_that_was_said_goes_over(run: Path) -> None:
    spans = list(read_spans(run, content=False))
    assert "secret" not in repr(spans)
    assert spans[0].attributes[semconv.OUTPUT_TOKENS] == 300
    assert "secret reply" in repr(list(read_spans(run)))


def test_a_vote_has_its_tally_and_its_tokens(run: Path) -> None:
    told = next(s for s in read_spans(run) if s.name == "decide parents").attributes
    assert json.loads(str(told["agentlab.tally"])) == DECISION["tally"]
    assert (told["agentlab.key"], told[semconv.INPUT_TOKENS], told[semconv.OUTPUT_TOKENS]) == ([0, 1], 40, 8)


def test_a_candidate_names_its_tool_and_all_figures_of_its_record(run: Path) -> None:
    told = [s for s in read_spans(run) if s.name.startswith("execute_tool")][3].attributes
    assert (told[semconv.OPERATION], told[semconv.TOOL]) == ("execute_tool", "fit.laws")
    assert (told["agentlab.id"], told["agentlab.reason"], told["agentlab.dev.r2"]) == (3, "seen before", 0.5)
    assert (told["agentlab.objective"], told["agentlab.parents"]) == ("inf", [])
    assert json.loads(str(told["agentlab.params"])) == {"all": {"y": {"a": 1.5}}}


def test_the_run_tells_what_it_was_asked_and_what_it_found(run: Path) -> None:
    told = list(read_spans(run))[-1].attributes
    assert (told[semconv.AGENT], told["agentlab.run"], told["agentlab.task"]) == ("agentlab", "toy-001", "toy")
    assert told["agentlab.budget.candidates"] == 8
    assert "agentlab.budget.usd" not in told
    assert (told["agentlab.stop.reason"], told["agentlab.law.formula"]) == ("no gain", "a + 4*x")


def test_times_are_those_of_the_blocks_and_calls_that_were_noted(run: Path) -> None:
    calls, blocks, rest = (0.5, 1.75), [(0.0, 2.0), (2.0, 5.5)], (5.5, 5.5)
    found = [seconds(s) for s in read_spans(run)]
    assert found[:3] == [calls, blocks[0], blocks[0]]
    assert found[3:5] == [(2.0, 2.0)] * 2, "not noted: where the one before ended"
    assert found[5:9] == [blocks[1], blocks[1], rest, rest]
    assert found[9] == (0.0, 9.0)


@pytest.mark.parametrize(
    "notes",
    [
        [],
        [{"committed": "2", "seconds": None}, {"call": [], "began": 1}, {"call": 7, "took": []}, {}],
        [{"committed": 9, "seconds": -3.0}, {"call": 7, "began": "inf", "took": "nan"}],
    ],
    ids=["none", "damaged", "out of range"],
)
def test_without_times_all_is_at_the_beginning_and_nothing_ends_before_it_begins(
    tmp_path: Path, notes: list[Record]
) -> None:
    found = [seconds(s) for s in read_spans(make(tmp_path / "r", notes=notes))]
    assert all(0 <= start <= end <= 1 for start, end in found)


def test_a_trace_that_grows_keeps_the_ids_it_had(tmp_path: Path) -> None:
    young = list(read_spans(make(tmp_path / "a" / "toy", RECORDS[:4], NOTES[:1])))
    old = list(read_spans(make(tmp_path / "b" / "toy")))
    assert [s.id for s in young[:-1]] == [s.id for s in old[: len(young) - 1]]
    assert young[-1].id == old[-1].id
    other = list(read_spans(make(tmp_path / "b" / "other")))
    assert not {s.id for s in other} & {s.id for s in old}


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda p: p.unlink(), "holds no run; begin it with: agentlab runs resume"),
        (lambda p: p.write_bytes(b""), "holds no run"),
        (lambda p: p.write_bytes(dump({"kind": "call"})), "holds no run"),
        (lambda p: p.write_bytes(dump(RUN) + b"{broken\n" + dump(RUN)), "line 2 is damaged"),
    ],
    ids=["missing", "empty", "other", "damaged"],
)
def test_a_trace_that_is_none_is_one_line(run: Path, tmp_path: Path, harm: Callable[[Path], None], says: str) -> None:
    harm(run / "trace.jsonl")
    with pytest.raises(TraceError, match=rf"^[^\n]*{says}[^\n]*$"):
        write(run, tmp_path / "spans.jsonl")
    assert not list(tmp_path.glob("spans*"))


# ---- sent to a collector ----


@dataclass
class Collector:
    """A collector on loopback, and what it has got; `answer` says what it says."""

    url: str
    got: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[int], Response] = field(default=lambda _: said())

    @property
    def spans(self) -> list[Sent]:
        return [s for g in self.got for r in g.resource_spans for p in r.scope_spans for s in p.spans]


def said(body: bytes = b"", status: int = 200, wait: str = "", to: str = "") -> Response:
    headers = {"retry-after": wait} if wait else {"location": to} if to else {}
    return Response(body, status, headers, media_type="application/x-protobuf")


@contextmanager
def collecting() -> Iterator[Collector]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        collector = Collector(f"http://127.0.0.1:{sock.getsockname()[1]}")

        async def take(request: Request) -> Response:
            body = await request.body()
            body = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
            collector.got.append(ExportTraceServiceRequest.FromString(body))
            collector.headers.append(dict(request.headers))
            return collector.answer(len(collector.got))

        app = Starlette(routes=[Route("/base/v1/traces", take, methods=["POST"])])
        config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield collector
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def _collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def collector(_collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """The collector, empty; none of the variables of whoever runs the tests is seen."""
    for name in [n for n in os.environ if n.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    _collector.got, _collector.headers, _collector.answer = [], [], lambda _: said()
    return _collector


def plain(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    return [plain(v) for v in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))


def test_a_collector_gets_every_span_as_it_is_read(run: Path, collector: Collector) -> None:
    done = send(run, collector.url + "/base")
    wanted = list(read_spans(run))
    assert (done.spans, done.where) == (len(wanted), collector.url.removeprefix("http://"))
    assert {s.trace_id.hex() for s in collector.spans} == {done.trace}
    for got, span in zip(collector.spans, wanted, strict=True):
        assert (got.name, got.span_id, got.parent_span_id) == (span.name, span.id, span.parent)
        assert (got.start_time_unix_nano, got.end_time_unix_nano) == (span.start, span.end)
        assert got.kind == (Sent.SPAN_KIND_CLIENT if span.client else Sent.SPAN_KIND_INTERNAL)
        assert (got.status.code == Status.STATUS_CODE_ERROR, got.status.message) == (bool(span.failed), span.failed)
        assert {a.key: plain(a.value) for a in got.attributes} == span.attributes
    resource = collector.got[0].resource_spans[0]
    assert {a.key: plain(a.value) for a in resource.resource.attributes}["service.name"] == "agentlab"
    assert {p.schema_url for g in collector.got for r in g.resource_spans for p in r.scope_spans} == {
        semconv.SCHEMA_URL
    }


def test_a_second_export_sends_the_same_bytes(run: Path, collector: Collector) -> None:
    for _ in range(2):
        send(run, collector.url + "/base/v1/traces")
    one, two = (g.SerializeToString(deterministic=True) for g in collector.got)
    assert one == two


def test_a_long_run_goes_in_batches(tmp_path: Path, collector: Collector) -> None:
    long = make(tmp_path / "long", [RUN, *(entry(n) for n in range(2 * MOST_SPANS + 5))])
    send(long, collector.url + "/base")
    assert [sum(1 for _ in g.resource_spans[0].scope_spans[0].spans) for g in collector.got] == [MOST_SPANS] * 2 + [6]
    big = [REPLY | {semconv.INPUT_MESSAGES: "é" * 900_000, "call": n} for n in range(5)]
    collector.got.clear()
    send(make(tmp_path / "big", [RUN, *big]), collector.url + "/base")
    assert len(collector.spans) == 6
    assert len(collector.got) == 3
    assert max(len(g.SerializeToString()) for g in collector.got) < 4_500_000


def test_keys_compression_and_service_come_from_the_environment(
    run: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url + "/base/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{SECRET}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "laws")
    done = send(run)
    assert done.spans == len(collector.spans)
    assert collector.headers[0]["authorization"] == f"Bearer {SECRET}"
    attributes = collector.got[0].resource_spans[0].resource.attributes
    assert {a.key: plain(a.value) for a in attributes}["service.name"] == "laws"
    assert SECRET not in repr(done)


def test_the_address_of_traces_alone_is_taken_as_it_stands(run: Path, collector: Collector) -> None:
    env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.url + "/base/v1/traces", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}
    assert send(run, env=env).spans == len(collector.spans)


def refusing(count: int, message: str) -> Response:
    refused = ExportTracePartialSuccess(rejected_spans=count, error_message=message)
    return said(ExportTraceServiceResponse(partial_success=refused).SerializeToString())


ANSWERS: dict[str, tuple[Callable[[], Response], str]] = {
    "unauthorised": (lambda: said(SECRET.encode(), 401), "answers 401 Unauthorized; 0 spans had arrived"),
    "too large": (lambda: said(status=413), "answers 413"),
    "broken": (lambda: said(status=500), "answers 500"),
    "busy": (lambda: said(status=503, wait="60"), "answers 503"),
    "moved": (lambda: said(status=302, to="/elsewhere"), "answers 302"),
    "refused": (lambda: refusing(3, "too\nold"), r"refuses 3 of them \(too old\)"),
    "refused silently": (lambda: refusing(1, ""), r"refuses 1 of them \(no reason given\)"),
}


@pytest.mark.parametrize(("answer", "says"), ANSWERS.values(), ids=ANSWERS)
def test_a_collector_that_does_not_take_them_is_one_line(
    answer: Callable[[], Response],
    says: str,
    run: Path,
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    collector.answer = lambda _: answer()
    with pytest.raises(BackendError, match=rf"^the collector at 127[^\n]* {says}[^\n]*$") as raised:
        send(run, collector.url + "/base")
    assert SECRET not in str(raised.value)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_what_arrived_before_a_failure_is_counted(tmp_path: Path, collector: Collector) -> None:
    collector.answer = lambda number: said(status=200 if number < 3 else 400)
    long = make(tmp_path / "long", [RUN, *(entry(n) for n in range(3 * MOST_SPANS))])
    with pytest.raises(BackendError, match=f"answers 400 Bad Request; {2 * MOST_SPANS} spans had arrived"):
        send(long, collector.url + "/base")


def test_a_collector_that_is_busy_for_a_moment_is_asked_again(run: Path, collector: Collector) -> None:
    collector.answer = lambda number: said(status=503, wait="0") if number == 1 else said()
    assert send(run, collector.url + "/base").spans == SPANS + 1
    assert len(collector.got) == 2


def test_a_collector_that_answers_in_prose_has_taken_them(run: Path, collector: Collector) -> None:
    collector.answer = lambda _: Response("<p>thank you</p>")
    assert send(run, collector.url + "/base").spans == SPANS + 1


def test_nobody_there_is_one_line(run: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(BackendError, match=rf"^the collector at 127\.0\.0\.1:{port} does not answer; 0 spans"):
            send(run, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, "where to: add --otlp"),
        ("collector:4318", "cannot be read; write it as http://HOST:4318"),
        (f"ann:{SECRET}@collector:4318", "cannot be read"),
        ("grpc://collector:4317", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("http://collector:many", "cannot be read"),
        (f"http://ann:{SECRET}@collector:4318", "the address of collector holds a key; set OTEL_EXPORTER_OTLP_HEADERS"),
        (f"http://collector:4318/?key={SECRET}", "the address of collector holds a key"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(run: Path, url: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        send(run, url, env={})
    assert SECRET not in str(raised.value)


def test_an_extra_that_is_missing_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "agentlab.otlp_send", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(BackendError, match=r"^[^\n]*pip install 'agentlab-discovery\[otlp\]'[^\n]*$"):
        send(run, "http://127.0.0.1:4318")
    assert write(run, tmp_path / "spans.jsonl").spans == SPANS + 1


# ---- written to a file ----


def hexed(request: dict[str, Any]) -> dict[str, Any]:
    """The JSON of OTLP as protobuf's own reader takes it, which wants ids in base 64."""
    for span in request["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for key in ("traceId", "spanId", "parentSpanId"):
            if key in span:
                span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return request


def test_a_file_holds_what_a_collector_gets(run: Path, collector: Collector, tmp_path: Path) -> None:
    done = write(run, tmp_path / "spans.jsonl")
    assert send(run, collector.url + "/base").trace == done.trace
    lines = list(read(tmp_path / "spans.jsonl"))
    (written,) = [json_format.ParseDict(hexed(line), ExportTraceServiceRequest()) for line in lines]
    for span in collector.spans:
        span.ClearField("flags")
    assert list(written.resource_spans[0].scope_spans[0].spans) == collector.spans


@pytest.mark.parametrize("file", ["toy-001/trace.jsonl", "toy-001/new.jsonl", "none/here.jsonl", ".", "toy-001"])
def test_a_file_that_cannot_be_written_is_one_line_and_the_run_stays_as_it_was(
    run: Path, tmp_path: Path, file: str
) -> None:
    before = (run / "trace.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"^--out [^\n]*; give a file"):
        write(run, tmp_path / file)
    assert (run / "trace.jsonl").read_bytes() == before
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "timing.jsonl", "trace.jsonl"]


# ---- the verb ----


def export(*words: str) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(runs_export)
    app(list(words), standalone_mode=False)


def test_the_verb_sends_or_writes_and_says_what_comes_next(
    run: Path, collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(str(run), "--otlp", f"{collector.url}/base", "--no-content")
    assert "secret" not in repr(collector.spans)
    said_last = capsys.readouterr().out.splitlines()
    assert said_last[0].startswith(f"{SPANS + 1} spans of toy-001 are at 127.0.0.1:")
    assert said_last[-1] == f"next: agentlab runs show {run}"
    export(str(run), "--out", str(tmp_path / "spans.jsonl"), "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["spans"], told["where"]) == ("toy-001", SPANS + 1, str(tmp_path / "spans.jsonl"))
    assert "secret reply" in (tmp_path / "spans.jsonl").read_text()
    with pytest.raises(AgentlabError, match="give one of them"):
        export(str(run), "--out", "x", "--otlp", "http://collector")
    with pytest.raises(UsageError, match="no run 'never'"):
        export("never", "--out", "x")
