"""What `audiomill plan` measures, and what it is asked to forecast."""

from __future__ import annotations

import re
from dataclasses import dataclass

from audiomill.config.fields import Validated, option
from audiomill.config.jobs import JobConfig, ModelTask, Stages, job_of
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.errors import UsageError

PRICE = re.compile(r"(gpu|cpu)=(\d+(?:\.\d+)?)(?:/h)?")
UNSAID_OUTPUT = "audiomill-forecast"


def numbers(text: str, name: str) -> tuple[int, ...]:
    """`1,8` -> (1, 8).

    Raises:
        UsageError: something else than numbers above 0.
    """
    result = text.split(",")
    if not all(each.strip().isdigit() and int(each) > 0 for each in result):
        raise UsageError(f"--{name} {text}: expected numbers above 0 by comma, e.g. 1,8,64")
    return tuple(sorted({int(each) for each in result}))


def prices(text: str | None) -> dict[str, float]:
    """`gpu=2.5/h,cpu=0.04/h` -> {"gpu": 2.5, "cpu": 0.04}.

    Raises:
        UsageError: not of this form.
    """
    results = {}
    for each in (text or "").split(",") if text else []:
        match = PRICE.fullmatch(each.strip())
        if match is None:
            raise UsageError(f"--price {each}: expected gpu=PRICE/h or cpu=PRICE/h, e.g. gpu=2.5/h")
        results[match.group(1)] = float(match.group(2))
    return results


@dataclass(frozen=True, kw_only=True)
class ForecastConfig(Validated):
    """How large the sample is, on what machines the job will run, and at what prices."""

    sample_minutes: float | None = option(
        None, "Audio to measure on.", otherwise="a thousandth of the corpus, at least 5 and at most 60 minutes"
    )
    seed: int = option(0, "Of the draw of the sample.")
    gpus: str = option("1,8,64", "Numbers of GPUs (where the sample ran on one) to forecast the time for, by comma.")
    cores: str = option("2,16,128", "Numbers of CPU cores to forecast the time for where no GPU is used, by comma.")
    cores_per_gpu: int = option(8, "CPU cores beside each GPU.")
    price: str | None = option(
        None, "What an hour costs, such as gpu=2.5/h and cpu=0.04/h (a core); several times or by comma.", several=True
    )
    search: bool = option(True, "Try other --batch-seconds on this device, where the sample fills more than one batch.")
    limit_seconds: float = option(
        120.0,
        "Measure no longer than this (one part of the sample is always finished), and forecast from what there is.",
    )

    def check(self) -> None:
        self.require_positive("sample_minutes", "cores_per_gpu", "limit_seconds")
        numbers(self.gpus, "gpus")
        numbers(self.cores, "cores")
        prices(self.price)


@dataclass(frozen=True, kw_only=True)
class PlanJobConfig(Stages):
    """`audiomill plan`: what a job would take. `tasks` replace model and transcripts where a YAML file lists models."""

    LEFT_OUT = frozenset((
        "verify_segments", "max_output_bytes", "metrics", "overwrite", "report", "report_clips", "retry_rejected", "array_task",
        "strict", "traces",
    ))  # fmt: skip

    model: ModelConfig = ModelConfig()
    transcripts: TranscriptConfig = TranscriptConfig()
    forecast: ForecastConfig = ForecastConfig()

    def job(self, tasks: tuple[ModelTask, ...] | None = None) -> JobConfig:
        named = tasks or (ModelTask(model=self.model, transcripts=self.transcripts),)
        return job_of(self, "run" if tasks else "transcribe", named)
