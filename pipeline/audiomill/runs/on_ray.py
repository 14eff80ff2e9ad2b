"""Engine on Ray Data, one machine or a cluster. The only file that imports Ray.

One part is one row: a CPU task reads, decodes and segments it, a pool of model actors runs the models over it, a
small task writes it. Only counts come back. Retries are finite and errored blocks are let go, because the ledger decides
what is done; pools have a fixed size, because automatic ones ramp late or never; the stages' resources differ, so that
Ray does not fuse them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
# Ray runs its workers at niceness 15: whatever else runs would hold up the model on a CPU.
os.environ.setdefault("RAY_worker_niceness", "0")

import pyarrow as pa
import ray
import ray.data
import ray.util.metrics
import ray.util.scheduling_strategies

import audiomill
from audiomill import schema
from audiomill.config.run import EngineConfig
from audiomill.errors import RunError, UsageError
from audiomill.models.device import usable_cores
from audiomill.models.precision import cpu_features
from audiomill.runs.process_pool import Processes
from audiomill.stages.cut import cut_part
from audiomill.stages.failures import reported
from audiomill.stages.sandbox import Decoder
from audiomill.stages.spec import RunSpec
from audiomill.stages.write import save_result
from audiomill.storage.fs import Place
from audiomill.tables.assemble import stream_table, to_ipc
from audiomill.watch.meter import METRICS, StageCounts

_Part = tuple[int, pa.Table]
MAX_RETRIES = 2
CONNECT_TIMEOUT_S = 10.0
MAX_INPUT_BLOCKS = 200
WRITE_CPUS = 0.25
_PIECES_PER_ACTOR = 3
"""Pieces on their way to an actor, beside those that its other cores compute: enough to hide the transfer, few enough to
bound memory."""


@contextlib.contextmanager
def session(engine: EngineConfig, verbose: bool) -> Iterator[None]:
    """Connects to the cluster that the run names, or starts Ray on this machine; ends what it started."""
    if ray.is_initialized():
        _configure(engine, verbose)
        yield
        return
    address = engine.ray_address or os.environ.get("RAY_ADDRESS") or "local"
    _check_reachable(address)
    options: dict[str, Any] = {"address": address, "log_to_driver": verbose}
    options["logging_level"] = logging.INFO if verbose else logging.ERROR
    if address == "local":
        # Model actors mostly wait for decoded audio while decoders work, so they get CPUs of their own in Ray's count.
        extra = math.ceil(engine.num_actors * engine.cpus_per_actor)
        options |= {"num_cpus": usable_cores() + extra + 1, "include_dashboard": False}
    if engine.ship_code:
        options["runtime_env"] = {"py_modules": [str(Path(audiomill.__file__).parent)]}
    if not verbose:
        warnings.filterwarnings("ignore", module="ray")
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises plain ones
        raise _no_cluster(address, error) from error
    try:
        _configure(engine, verbose)
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself would wait for minutes for a host that does not answer."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> UsageError:
    reason = f"{str(error).splitlines()[0]}{'; set TMPDIR=/tmp' if 'AF_UNIX' in str(error) else ''}"
    if isinstance(error, PermissionError):  # its token lies there
        return UsageError(
            f"Ray cannot start ({reason}): set HOME to a folder that can be written, or use --engine local"
        )
    hint = "start a cluster with `ray start --head`, or use --engine local"
    return UsageError(f"--ray-address {address}: cannot connect ({reason}); {hint}")


def cluster_has_gpus() -> bool:
    """Whether Ray knows of a GPU; needs a session."""
    return bool(ray.cluster_resources().get("GPU"))


def features_of_nodes() -> frozenset[str]:
    """What the processors of all nodes offer, see `audiomill.models.precision`; needs a session."""
    asked = ray.remote(num_cpus=0)(cpu_features)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    strategies = [ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
    result = ray.get([asked.options(scheduling_strategy=strategy).remote() for strategy in strategies])
    return frozenset.intersection(*result)


def run_parts(
    parts: Sequence[_Part], spec: RunSpec, write: Callable[[pa.Table], pa.Table], waiting: dict[str, int] | None = None
) -> Iterator[pa.Table]:
    """Runs parts; needs a session.

    Args:
        parts: part numbers with their plan rows.
        spec: the run.
        write: takes the packed result of each piece on a worker, see `audiomill.tables.assemble`.
        waiting: kept up to date with what waits for each stage.

    Yields:
        What `write` returns. Parts whose workers keep dying are missing.
    """
    yield from _stream(parts, spec, write, spec.output, waiting=waiting)


def run_isolated(rows: dict[int, dict[str, Any]], spec: RunSpec, folder: Place) -> None:
    """Runs recordings one by one and saves their results; one that kills its workers leaves none.

    Args:
        rows: plan rows by a number that stands for them.
        spec: the run.
        folder: takes the results, under the row's number in place of a part's; see `stages.write.saved_results`.
    """
    parts = [(number, pa.Table.from_pylist([row], schema=schema.PLAN)) for number, row in rows.items()]
    # One at a time in an actor: what waits there with a recording that kills it would be taken down with it. Errors are
    # noted in the folder: the numbers here are not those of parts.
    spec = dataclasses.replace(spec, verify_segments={})
    for _ in _stream(parts, spec, lambda result: save_result(result, folder), folder, num_waiting=1):
        pass


def _stream(
    parts: Sequence[_Part],
    spec: RunSpec,
    write: Callable[[pa.Table], pa.Table],
    notes: Place,
    num_waiting: int = _PIECES_PER_ACTOR,
    waiting: dict[str, int] | None = None,
) -> Iterator[pa.Table]:
    board = StageCounters(len(parts)) if waiting is not None and spec.is_watched else None
    items = [{"part": part, "rows": to_ipc(rows, "zstd")} for part, rows in parts]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_INPUT_BLOCKS))
    dataset = dataset.repartition(target_num_rows_per_block=1)
    dataset = _mapped(dataset, _Decode(spec, notes, board), num_cpus=1, max_retries=MAX_RETRIES)
    dataset = _mapped(dataset, _Infer, fn_constructor_args=(spec, notes, board), **_actor_options(spec, num_waiting))
    dataset = _mapped(dataset, _Write(write, notes, board), num_cpus=WRITE_CPUS, max_retries=MAX_RETRIES)
    for counts in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        if board is not None and waiting is not None:
            waiting.update(board.waiting())
        yield counts


def _mapped(dataset: Any, function: Any, **options: Any) -> Any:
    """`map_batches` of single rows. The retry options have no replacement for the deprecated keywords yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dataset.map_batches(function, batch_size=1, batch_format="pyarrow", **options)


def _actor_options(spec: RunSpec, num_waiting: int) -> dict[str, Any]:
    on_gpu = spec.device.startswith("cuda")
    gpus = spec.engine.gpus_per_actor if spec.engine.gpus_per_actor is not None else float(on_gpu)
    cores = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes())
    at_once = _cores_of_actor(spec, cores) if num_waiting > 1 else 1
    pool = ray.data.ActorPoolStrategy(
        size=spec.engine.num_actors,
        max_tasks_in_flight_per_actor=at_once - 1 + num_waiting,
        max_concurrent_calls_per_actor=at_once,
        enable_true_multi_threading=True,
    )
    return {
        "compute": pool,
        "num_gpus": gpus,
        "num_cpus": spec.engine.cpus_per_actor,
        "max_task_retries": MAX_RETRIES,
        "max_restarts": -1,
    }


def _configure(engine: EngineConfig, verbose: bool) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.execution_no_progress_timeout_s = engine.no_progress_timeout
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)


class StageCounters:
    """What waits between the stages, for people: counted by an actor, which starts anew if its node dies.

    Args:
        num_parts: of the run.
    """

    def __init__(self, num_parts: int) -> None:
        self._actor = ray.remote(StageCounts).options(num_cpus=0, max_restarts=-1).remote(num_parts)

    def passed(self, stage: str, way: str) -> None:
        """Does not wait and does not fail."""
        self._actor.passed.remote(stage, way)

    def waiting(self) -> dict[str, int]:
        """Parts before the decoders, pieces before the models and before the writers; nothing if the actor is away."""
        with contextlib.suppress(ray.exceptions.RayError):
            return dict[str, int](ray.get(self._actor.waiting.remote(), timeout=1.0))
        return {}


def _passed(board: StageCounters | None, stage: str, way: str) -> None:
    if board is not None:
        board.passed(stage, way)


def publisher(target: str | None, address: str | None) -> Callable[[Iterable[tuple[str, str, float]]], None] | None:
    """Ray's own exporter as a place for metrics: on a cluster, or where asked for; needs a session."""
    if target != "ray" and address in (None, "local"):
        return None
    gauges = {
        metric.name: ray.util.metrics.Gauge(metric.name, metric.meaning, (metric.label,) if metric.label else ())
        for metric in METRICS
    }
    labels = {metric.name: metric.label for metric in METRICS}

    def publish(values: Iterable[tuple[str, str, float]]) -> None:
        for name, where, value in values:
            gauges[name].set(float(value), {labels[name]: where} if labels[name] else {})

    return publish


class _Decode:
    """CPU task: the rows of a part -> its pieces."""

    def __init__(self, spec: RunSpec, notes: Place, board: StageCounters | None) -> None:
        self._spec, self._notes, self._board = spec, notes, board

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        spec, (part,), (rows,) = self._spec, batch.column("part").to_pylist(), batch.column("rows").to_pylist()
        decoder = Decoder(spec.decode, spec.segments, spec.storage_options, spec.verbose)
        _passed(self._board, "decode", "in")
        try:
            with reported(part, self._notes):
                for piece in cut_part(part, stream_table(rows).to_pylist(), decoder, spec.piece_samples):
                    _passed(self._board, "decode", "out")
                    yield piece
        finally:
            decoder.close()


class _Infer:
    """Model actor: pieces -> their results, as many at once as it has cores. The models compute in processes of their own,
    as on the local engine."""

    def __init__(self, spec: RunSpec, notes: Place, board: StageCounters | None) -> None:
        self._notes, self._board = notes, board
        self._processes = Processes(spec, _cores_of_actor(spec, usable_cores()))

    def __call__(self, piece: pa.Table) -> pa.Table:
        _passed(self._board, "infer", "in")
        with self._processes.one() as process:
            assert process is not None, "nobody closes them"
            result = self._processes.infer(piece, process, self._notes)
        _passed(self._board, "infer", "out")
        return result


class _Write:
    """CPU task: a result -> files and counts."""

    def __init__(self, write: Callable[[pa.Table], pa.Table], notes: Place, board: StageCounters | None) -> None:
        self._write, self._notes, self._board = write, notes, board

    def __call__(self, result: pa.Table) -> pa.Table:
        _passed(self._board, "write", "in")
        with reported(result.column("part")[0].as_py(), self._notes):
            return self._write(result)


def _cores_of_actor(spec: RunSpec, cores: int) -> int:
    """Cores that an actor may compute on, of those of its node: the actors that find room there share them."""
    if spec.device != "cpu":
        return 1
    actors_here = -(-spec.engine.num_actors // max(1, sum(bool(node["Alive"]) for node in ray.nodes())))
    return max(1, int(spec.engine.cpus_per_actor), cores // actors_here)


def train(function: Callable[[], None], workers: int, device: str, address: str | None) -> None:
    """Runs `function` on several workers of Ray Train, which form a torch process group. Their code must reach the
    folders of the training: a shared file system, where there is more than one node.

    Raises:
        RunError: a worker failed again and again.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    with (
        session(EngineConfig(ray_address=address, actors=workers), verbose=False),
        tempfile.TemporaryDirectory() as folder,
    ):
        on_gpu = device.startswith("cuda") or (device == "auto" and cluster_has_gpus())
        trainer = TorchTrainer(
            lambda: function(),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpu, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=MAX_RETRIES)),
        )
        try:
            trainer.fit()
        except Exception as error:  # Ray wraps what a worker raised in errors of its own
            raise RunError(f"Ray Train: {' '.join(str(error).split())[-300:]}; run the same command again") from error
