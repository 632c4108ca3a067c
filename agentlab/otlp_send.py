"""Sends spans to a collector with OpenTelemetry's own exporter, which knows its variables, its keys and its retries."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from agentlab import __version__, semconv
from agentlab.errors import BackendError
from agentlab.otlp_spans import AGENT, Span

__all__ = ["deliver"]


@dataclass
class _Answer:
    """What the collector said to the last request, in words: "" where it took all of it."""

    words: str = "does not answer"

    def take(self, response: requests.Response, **_: object) -> None:
        if not 200 <= response.status_code < 300:  # the exporter takes a redirection for a success
            self.words = f"answers {response.status_code} {response.reason}"
            return
        try:
            refused = ExportTraceServiceResponse.FromString(response.content).partial_success
        except DecodeError:  # a collector that says something else has taken them all the same
            self.words = ""
            return
        few = " ".join(refused.error_message.split())[:200] or "no reason given"
        self.words = f"refuses {refused.rejected_spans} of them ({few})" if refused.rejected_spans else ""


def deliver(batches: Iterable[Sequence[Span]], trace: bytes, endpoint: str, where: str) -> int:
    """Post the spans of one trace, batch by batch; how many there were.

    Raises:
        BackendError: a batch was not taken; those before it were.
    """
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before ours.
    ours = Resource({"service.name": AGENT, "service.version": __version__}, semconv.SCHEMA_URL)
    resource = ours.merge(OTELResourceDetector().detect())
    session, sent = requests.Session(), 0
    with _silence(), _exporter(endpoint, session) as exporter:
        for batch in batches:
            answer = _Answer()
            session.hooks["response"] = [answer.take]
            result = exporter.export([_readable(span, trace, resource) for span in batch])
            if answer.words or result is not SpanExportResult.SUCCESS:
                raise BackendError(
                    f"the collector at {where} {answer.words or 'took too long'}; {sent} spans had arrived;"
                    " see that it listens there for OTLP over HTTP, then send the run again"
                )
            sent += len(batch)
    return sent


@contextmanager
def _exporter(endpoint: str, session: requests.Session) -> Iterator[OTLPSpanExporter]:
    exporter = OTLPSpanExporter(endpoint=endpoint, session=session)
    try:
        yield exporter
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter from logging what is told in one line."""
    logger, nothing = logging.getLogger("opentelemetry.exporter"), logging.NullHandler()
    before = logger.propagate
    logger.addHandler(nothing)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(nothing)


def _readable(span: Span, trace: bytes, resource: Resource) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=_context(trace, span.id),
        parent=_context(trace, span.parent) if span.parent else None,
        resource=resource,
        attributes=dict(span.attributes),
        kind=SpanKind.CLIENT if span.client else SpanKind.INTERNAL,
        instrumentation_scope=InstrumentationScope(AGENT, __version__, semconv.SCHEMA_URL),
        status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(),
        start_time=span.start,
        end_time=span.end,
    )


def _context(trace: bytes, span: bytes) -> SpanContext:
    sampled = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int.from_bytes(trace), int.from_bytes(span), is_remote=False, trace_flags=sampled)
