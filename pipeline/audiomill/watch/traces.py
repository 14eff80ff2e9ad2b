"""OpenTelemetry spans of a run: one for each part, inside it one for each stage, made from its ledger entry."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console

import audiomill
from audiomill.errors import UsageError
from audiomill.watch.meter import BEFORE_INFER, STAGES

NANOSECONDS = 1_000_000_000
EXPORT_TIMEOUT_S = 2.0


@contextlib.contextmanager
def tracer(endpoint: str | None, console: Console) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Takes the ledger entries of finished parts; what is not sent yet is sent at the end, and what cannot be is told.

    Args:
        endpoint: OTLP over HTTP, e.g. `http://localhost:4318/v1/traces`; None: nothing is sent.
        console: for a warning.

    Raises:
        UsageError: OpenTelemetry is not installed.
    """
    if endpoint is None:
        yield lambda entry: None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    except ImportError as error:
        raise UsageError("--traces: OpenTelemetry is not installed; run: pip install 'audiomill[otel]'") from error
    num_lost = 0

    class Exporter(OTLPSpanExporter):  # type: ignore[misc]
        def export(self, spans: Any) -> Any:
            nonlocal num_lost
            result = super().export(spans)
            num_lost += len(spans) * (result is not SpanExportResult.SUCCESS)
            return result

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # one warning of ours instead
    provider = TracerProvider(resource=Resource.create({"service.name": "audiomill"}))
    provider.add_span_processor(BatchSpanProcessor(Exporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)))
    maker = provider.get_tracer("audiomill", audiomill.__version__)
    try:
        yield lambda entry: record(maker, entry)
    finally:
        provider.shutdown()
        if num_lost:
            console.print(f"warning: --traces {endpoint}: {num_lost} spans could not be delivered")


def record(maker: Any, entry: Mapping[str, Any]) -> None:
    """Spans of one part. Stages before the models are laid end to end before them: only their lengths are known."""
    from opentelemetry import trace

    if entry["began"] is None:
        return
    seconds = entry["seconds"]
    lengths = [(stage, seconds.get(stage, 0.0)) for stage in STAGES]
    at = entry["began"] - sum(seconds.get(stage, 0.0) for stage in BEFORE_INFER)
    attributes = {"part": entry["part"], "audio_s": entry["duration_s"], "recordings": entry["num_recordings"]}
    parent = maker.start_span("part", start_time=int(at * NANOSECONDS), attributes=attributes)
    for stage, length in lengths:
        child = maker.start_span(stage, context=trace.set_span_in_context(parent), start_time=int(at * NANOSECONDS))
        at += length
        child.end(int(at * NANOSECONDS))
    parent.end(int(at * NANOSECONDS))
