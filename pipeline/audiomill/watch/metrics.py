"""A run's meter for Prometheus: an endpoint to scrape, a text file that is kept up to date, or Ray's exporter."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from audiomill.config.run import metrics_target
from audiomill.errors import UsageError
from audiomill.watch.meter import METRICS, Meter

INTERVAL_S = 2.0
Publish = Callable[[Iterable[tuple[str, str, float]]], None]


class _Collector:
    """What Prometheus asks: the meter as it is at this moment. A metric that is known but has no value yet says so by
    a family without samples, one without labels is 0."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Metric]:
        values = list(self._meter.values())
        for name, kind, meaning, label in METRICS:
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            result = family(name, meaning, labels=[label] if label else [])
            for each, where, value in values:
                if each == name:
                    result.add_metric([where] if label else [], value)
            yield result


@contextlib.contextmanager
def export_metrics(meter: Meter, target: str | None, publish: Publish | None) -> Iterator[None]:
    """Makes the meter visible while the run lasts, and once more at its end.

    Args:
        meter: of the run.
        target: see `WatchConfig.metrics`.
        publish: Ray's exporter, where the run has one.

    Raises:
        UsageError: the port is taken, or the file cannot be written.
    """
    where = None if target is None else metrics_target(target)
    registry = CollectorRegistry()
    registry.register(_Collector(meter))
    with contextlib.ExitStack() as stack:
        if isinstance(where, tuple):
            stack.enter_context(_served(where, registry))
        elif where is not None and where != "ray":
            stack.enter_context(_repeated(lambda: _write(where, registry)))
        if publish is not None:
            stack.enter_context(_repeated(lambda: publish(meter.values())))
        yield


@contextlib.contextmanager
def _served(where: tuple[str, int], registry: CollectorRegistry) -> Iterator[None]:
    host, port = where
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(
            f"--metrics {host}:{port}: cannot listen there ({error.strerror}); choose another port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _write(path: str, registry: CollectorRegistry) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(os.fspath(path), registry)
    except OSError as error:
        raise UsageError(f"--metrics {path}: cannot be written ({error.strerror}); choose another file") from error


@contextlib.contextmanager
def _repeated(action: Callable[[], Any]) -> Iterator[None]:
    """Runs `action` now, every few seconds, and at the end."""
    action()
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(INTERVAL_S):
            with contextlib.suppress(Exception):  # a scrape that fails must not end a run
                action()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(Exception):
            action()
