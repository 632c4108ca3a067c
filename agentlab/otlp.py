"""Takes a run's spans elsewhere: to a collector over OTLP, which is an extra, or into a file of OTLP's JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentlab import __version__, semconv
from agentlab.errors import BackendError
from agentlab.otlp_spans import AGENT, Span, Value, read_spans, trace_id
from agentlab.trace import dump
from agentlab.words import UsageError

__all__ = ["Exported", "send", "write"]

MOST_SPANS, MOST_CHARACTERS = 256, 2_000_000
"""What goes into one request, or one line: collectors refuse requests of 20 MB and more."""

PATH = "/v1/traces"
ENDPOINT, TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Exported:
    """What left: the number of spans, the id they share, in hex, and where they went."""

    spans: int
    trace: str
    where: str


def send(
    folder: Path, url: str | None = None, *, content: bool = True, env: Mapping[str, str] = os.environ
) -> Exported:
    """Send a run's spans to the collector at `url`, else at the one that `env` names; keys are taken from there alone.

    Raises:
        UsageError: no collector is named, or its address cannot be used.
        BackendError: the extra is missing, or the collector does not take the spans.
        TraceError: there is no trace of a run, or it is damaged.
    """
    endpoint = _endpoint(url, env)
    where = urlsplit(endpoint).netloc.rpartition("@")[2]
    try:
        from agentlab.otlp_send import deliver  # noqa: PLC0415 -- an extra
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("opentelemetry", "google"):
            raise
        raise BackendError("sending spans needs: pip install 'agentlab-discovery[otlp]'; --out FILE does not") from None
    trace = trace_id(folder)
    sent = deliver(_batches(read_spans(folder, content=content)), trace, endpoint, where)
    return Exported(sent, trace.hex(), where)


def write(folder: Path, file: Path, *, content: bool = True) -> Exported:
    """Write a run's spans to a file, each line a request as collectors read it.

    Raises:
        UsageError: the file lies in the run's folder, or cannot be written.
        TraceError: there is no trace of a run, or it is damaged.
    """
    if file.resolve().is_relative_to(folder.resolve()) or file.is_dir():
        raise UsageError(f"--out {file} is a folder, or lies in the run's own; give a file elsewhere")
    trace, spans = trace_id(folder), 0
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        with temporary.open("wb") as out:
            for batch in _batches(read_spans(folder, content=content)):
                out.write(dump(_request(batch, trace)))
                spans += len(batch)
        temporary.replace(file)
    except OSError as error:
        raise UsageError(f"--out {file}: {error.strerror}; give a file that can be written") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(spans, trace.hex(), str(file))


def _endpoint(url: str | None, env: Mapping[str, str]) -> str:
    """The address that spans are posted to; a base address is completed, as the environment's is."""
    if url is None and env.get(TRACES_ENDPOINT):
        url = env[TRACES_ENDPOINT]
    elif base := url or env.get(ENDPOINT):
        url = base if base.endswith(PATH) else base.rstrip("/") + PATH
    if not url:
        raise UsageError(f"where to: add --otlp http://HOST:4318 or --out FILE, or set {ENDPOINT}")
    try:
        parts = urlsplit(url)
        readable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        readable = False
    if not readable:
        raise UsageError("the collector's address cannot be read; write it as http://HOST:4318")
    if parts.username or parts.password or parts.query:
        raise UsageError(f"the address of {parts.hostname} holds a key; set OTEL_EXPORTER_OTLP_HEADERS instead")
    return url


def _batches(spans: Iterable[Span]) -> Iterator[list[Span]]:
    batch: list[Span] = []
    size = 0
    for span in spans:
        much = sum(len(v) for v in span.attributes.values() if isinstance(v, str))
        if batch and (len(batch) == MOST_SPANS or size + much > MOST_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(span)
        size += much
    if batch:
        yield batch


def _request(batch: Iterable[Span], trace: bytes) -> dict[str, Any]:
    """A batch in OTLP's JSON: ids in hex, whole numbers of 64 bits as text, members of enumerations by number."""
    scope = {"name": AGENT, "version": __version__}
    spans = [_span(span, trace) for span in batch]
    resource = {"attributes": _pairs({"service.name": AGENT, "service.version": __version__})}
    scopes = [{"scope": scope, "spans": spans, "schemaUrl": semconv.SCHEMA_URL}]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": scopes, "schemaUrl": semconv.SCHEMA_URL}]}


def _span(span: Span, trace: bytes) -> dict[str, Any]:
    return {
        "traceId": trace.hex(),
        "spanId": span.id.hex(),
        **({"parentSpanId": span.parent.hex()} if span.parent else {}),
        "name": span.name,
        "kind": 3 if span.client else 1,
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": _pairs(span.attributes),
        "status": {"code": 2, "message": span.failed} if span.failed else {},
    }


def _pairs(attributes: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any(value)} for key, value in attributes.items()]


def _any(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
    return {"arrayValue": {"values": [_any(v) for v in value]}}
