"""Where a run's stages run, where its results go, and how it is watched. Re-runs and shards share an output."""

from __future__ import annotations

import re
from dataclasses import dataclass

from audiomill.config.fields import Validated, option
from audiomill.config.stages import OutputPlace
from audiomill.errors import UsageError

SHARD = re.compile(r"(\d+)/(\d+)")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)")
_UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}{end}": 1000**power for power, letter in enumerate("KMGT", 1) for end in ("", "B")},
}


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Validated):
    """Where the stages run."""

    COMMON = ("engine", "ray_address", "actors", "array_task")

    engine: str = option(
        "auto",
        "local: this process and its decode workers; ray: Ray Data, one machine or a cluster; auto: local, unless Ray is "
        "asked for by --ray-address, RAY_ADDRESS, --actors above 1, or several GPUs.",
        choices=("auto", "local", "ray"),
    )
    ray_address: str | None = option(
        None, "Address of a running cluster, or auto.", otherwise="a session of its own on this machine"
    )
    ship_code: bool = option(
        False, "Send this program's code along to the cluster instead of using what its image holds."
    )
    actors: int | None = option(None, "Model workers.", otherwise="one a GPU of this machine, else 1")
    gpus_per_actor: float | None = option(
        None, "GPUs a model worker takes, fractions allowed.", otherwise="1 on GPU, 0 on CPU"
    )
    cpus_per_actor: float = option(1.0, "CPUs a model worker takes from Ray's count.")
    decode_workers: int | None = option(
        None, "Decode processes of the local engine.", otherwise="cores - 1, at least 1"
    )
    verify_segments: int = option(
        3, "Random segments a run that are run again alone and compared with what their batch gave; 0: off."
    )
    array_task: str | None = option(
        None,
        "I/N: of N processes that share one output, this is number I (from 0) and works parts I, I + N, I + 2N ... No Ray needed "
        "between them; `inspect --missing-array-tasks N` names the numbers to start again.",
    )
    model_timeout: float = option(
        300.0,
        "Seconds that a model may compute, on all its cores, without a sign of life (and ten times as many that it may wait) "
        "before it is killed, and the recording that it hangs on rejected: a busy machine rejects nothing.",
    )
    no_progress_timeout: float = option(
        3600.0, "Ray: seconds without any block moving after which the run fails (GPU nodes may take long to come)."
    )

    @property
    def num_actors(self) -> int:
        """Model workers; one until the engine is settled."""
        return self.actors or 1

    def check(self) -> None:
        self.require_positive("actors", "gpus_per_actor", "decode_workers", "model_timeout", "no_progress_timeout")
        if self.verify_segments < 0:
            raise UsageError(f"--verify-segments {self.verify_segments}: expected 0 (off) or a number of segments")
        if self.array_task is not None:
            array_task_of(self.array_task)


def is_mine(part: int, array_task: str | None) -> bool:
    """Whether this process works the part: all of them without `--array-task`."""
    if array_task is None:
        return True
    number, of = array_task_of(array_task)
    return part % of == number


def array_task_of(text: str) -> tuple[int, int]:
    """`2/8` -> (2, 8).

    Raises:
        UsageError: not a number below another.
    """
    match = SHARD.fullmatch(text)
    if match is None or not int(match.group(1)) < int(match.group(2)):
        raise UsageError(f"--array-task {text}: expected I/N with I from 0 to N - 1, e.g. 0/4")
    return int(match.group(1)), int(match.group(2))


@dataclass(frozen=True, kw_only=True)
class OutputConfig(OutputPlace):
    """Where results go and what a rerun does."""

    COMMON = ("output", "overwrite", "retry_rejected", "strict", "quiet")
    EXAMPLE = "name the folder or URL for the tables, e.g. --output out/"

    output: str = option("", "Folder or URL for the tables.")
    retry_rejected: bool = option(False, "Run only the rejected recordings again.")
    max_output_bytes: str = option("100GB", "Warn before the run when its tables are forecast to be larger.")
    strict: bool = option(False, "Exit with 3 when anything was rejected.")
    verbose: bool = option(False, "Show what Ray, transformers and FFmpeg say.")

    def check(self) -> None:
        super().check()
        if self.overwrite and self.retry_rejected:
            raise UsageError("--overwrite and --retry-rejected exclude each other: drop one of them")
        size_in_bytes(self.max_output_bytes)


@dataclass(frozen=True, kw_only=True)
class WatchConfig(Validated):
    """How a run is watched, and what it shows at its end."""

    COMMON = ("metrics",)

    metrics: str | None = option(
        None,
        "Prometheus metrics of this run: PORT or HOST:PORT to scrape, FILE.prom for a text file that is kept up to date, ray for "
        "Ray's own exporter (the default on a cluster).",
    )
    log_format: str = option("text", "text, or json: one object a line on stderr.", choices=("text", "json"))
    traces: str | None = option(
        None, "OpenTelemetry: OTLP/HTTP endpoint that is sent a span for every part and stage (audiomill[otel])."
    )
    report: bool = option(True, "Write report.html when the output is complete.")
    report_clips: int = option(6, "Clips to listen to in the report, for each kind of failure.")

    def check(self) -> None:
        if self.metrics is not None:
            metrics_target(self.metrics)
        if self.report_clips < 0:
            raise UsageError(f"--report-clips {self.report_clips}: expected 0 or more")


def metrics_target(text: str) -> tuple[str, int] | str:
    """`9464` -> ("127.0.0.1", 9464); `0.0.0.0:9464`; `FILE.prom` and `ray` as they are.

    Raises:
        UsageError: none of these.
    """
    host, _, port = text.rpartition(":")
    if port.isdigit() and 0 <= int(port) < 65_536 and "/" not in host:
        return host or "127.0.0.1", int(port)
    if text == "ray" or text.endswith(".prom"):
        return text
    raise UsageError(f"--metrics {text}: expected PORT, HOST:PORT, FILE.prom or ray")


def size_in_bytes(text: str) -> int:
    """`100GB` -> 100000000000. Units are powers of 1000.

    Raises:
        UsageError: no number, or another unit.
    """
    match = SIZE.fullmatch(text.strip().upper())
    if match is None:
        raise UsageError(f"--max-output-bytes {text}: expected a number with KB, MB, GB or TB, e.g. 100GB")
    return int(float(match.group(1)) * _UNITS[match.group(2)])
