"""Every option that a job shows is read by that job; what it would ignore, it does not offer."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from audiomill.config.fields import Validated, build, flat_fields
from audiomill.config.forecast import PlanJobConfig
from audiomill.config.jobs import (
    EmbedConfig,
    EncodeConfig,
    JobConfig,
    KmeansJobConfig,
    RunConfig,
    TraceConfig,
    TranscribeConfig,
)
from audiomill.config.output_jobs import RedecodeConfig, TuneJobConfig
from audiomill.config.select import SelectJobConfig
from audiomill.config.train import FinetuneConfig
from audiomill.models.load import load_tasks
from audiomill.models.precision import cpu_features
from audiomill.runs.job import run_job
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.sources.listing import list_inputs
from audiomill.stages.cut import cut_part
from audiomill.stages.infer import infer_piece
from audiomill.stages.plan import planned_table
from audiomill.stages.sandbox import Decoder
from tests.support.command_line import command_of
from tests.support.synth import encode, noise

NOT_READING = ("dataclasses", "audiomill.config", "audiomill_jobs.options", "tests", "copy", "pickle")
SHOWN = {
    "transcribe": TranscribeConfig,
    "embed": EmbedConfig,
    "encode": EncodeConfig,
    "run": RunConfig,
    "kmeans": KmeansJobConfig,
    "trace": TraceConfig,
    "plan": PlanJobConfig,
    "redecode": RedecodeConfig,
    "tune-decoder": TuneJobConfig,
    "select": SelectJobConfig,
    "finetune": FinetuneConfig,
}


@contextmanager
def reads() -> Iterator[set[str]]:
    """Names of the config fields that anybody but the config itself looks at."""
    found: set[str] = set()
    plain = Validated.__getattribute__

    def watched(self: Any, name: str) -> Any:
        frame = sys._getframe(1)
        where = frame.f_globals.get("__name__", "")
        is_copied = where == "dataclasses" and frame.f_code.co_name in ("_asdict_inner", "asdict")
        if is_copied or not where.startswith(NOT_READING):
            found.add(name)
        return plain(self, name)

    Validated.__getattribute__ = watched  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        Validated.__getattribute__ = plain  # type: ignore[method-assign]


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_a_job_shows_the_options_of_its_config(name: str) -> None:
    shown = {param.name for param in command_of(name).params}
    assert {field.name for field in flat_fields(SHOWN[name])} <= shown


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, voices: Any) -> Path:
    folder = tmp_path_factory.mktemp("options") / "in"
    folder.mkdir()
    (folder / "voice.wav").write_bytes(encode(voices[1][0]))
    (folder / "voice.txt").write_text(voices[1][1])
    (folder / "noise.wav").write_bytes(encode(noise(24_000, 1)))
    return folder


def unread(kind: type, found: set[str]) -> set[str]:
    missing = {field.name for field in flat_fields(kind)} - found
    print(kind.__name__, sorted(missing))
    return missing


WITH_LM = {"word_insertion_score", "unk_score"}
"""Read where `--lm` names a model: tests/models/test_beam.py."""
TOLD_ALONE = {"punctuation", "num_tags"}
"""Read where a model is told, and where sound is tagged: tests/models/test_encoder_decoders.py, tests/models/test_sound_quality.py."""
OF_STREAMS = {"chunk_seconds", "left_context_seconds", "look_ahead_seconds"}
"""Read with `--segment stream`: tests/streams/test_streams.py."""
RUN_ELSEWHERE = {"ray_address", "ship_code", "gpus_per_actor", "cpus_per_actor", "no_progress_timeout"}
"""Read by the Ray engine, which tests/cluster runs."""
REPORTED = {"report", "report_clips", "strict", "log_format"}
"""Read by the command around the run."""


def heard_here(job: JobConfig) -> None:
    """One piece through the models in this process: in a run they have one of their own, where nobody sees them read."""
    tasks = resolve_tasks(job)
    spec, _ = resolve_run(job, tasks, "cpu", cpu_features())
    entries = list_inputs(job.inputs, {}, None, job.output.output).entries
    plan = planned_table(entries, [None] * len(entries), first_part=0, part_seconds=60.0)
    decoder = Decoder(spec.decode, spec.segments, {})
    piece = next(cut_part(0, plan.to_pylist(), decoder, spec.piece_samples))
    decoder.close()
    infer_piece(piece, load_tasks(spec.tasks, {}), spec.tables, 0)


def run_here(config: Any) -> None:
    """The run, and what its models do, seen from here."""
    run_job(config.job(), Console(quiet=True))
    heard_here(config.job())


def run_all(kind: type, settings: list[dict[str, Any]], clip: Path, output: Path, job: Any) -> set[str]:
    with reads() as found:
        for number, each in enumerate(settings):
            values = {"inputs": (str(clip),), "output": str(output / str(number)), "engine": "local"}
            job(build(kind, {**values, **each}))
    return found


def test_transcribe_reads_what_it_shows(clip: Path, tmp_path: Path, whisper: Path, wav2vec2_folder: Path) -> None:
    (tmp_path / "words.txt").write_text("the\nquick\n")
    settings = [
        {"model": "fake://", "report": False, "speakers": "auto", "quality": True},
        {"model": str(whisper), "report": False, "prompt": "fox"},
        {"model": str(wav2vec2_folder), "beam_size": 2, "hotwords": "fox", "save_posteriors": 2, "segment": "fixed"},
    ]
    found = run_all(TranscribeConfig, settings, clip, tmp_path / "out", run_here)
    # --low-confidence is looked at where a text fails at every fallback level: tests/models/test_fallback.py.
    assert unread(TranscribeConfig, found) <= RUN_ELSEWHERE | REPORTED | WITH_LM | TOLD_ALONE | OF_STREAMS | {
        "low_confidence"
    }


@pytest.mark.parametrize("kind", [EmbedConfig, EncodeConfig])
def test_embed_and_encode_read_what_they_show(kind: type, clip: Path, tmp_path: Path, whisper: Path) -> None:
    settings: list[dict[str, Any]] = [{"model": "fake://", "layers": "1", "speakers": "auto", "quality": True}]
    if kind is EmbedConfig:
        settings.append({"model": str(whisper), "layers": "1"})
    found = run_all(kind, settings, clip, tmp_path / "out", run_here)
    # --memory-fraction is Whisper's and --trust-remote-code is that of transformers' models; --codebook-layer is for .npy files.
    left = (
        RUN_ELSEWHERE | REPORTED | TOLD_ALONE | OF_STREAMS | {"memory_fraction", "trust_remote_code", "codebook_layer"}
    )
    assert unread(kind, found) <= left


def test_kmeans_reads_what_it_shows(clip: Path, tmp_path: Path, wav2vec2_folder: Path) -> None:
    from audiomill.runs.kmeans import fit_codebook

    settings = [
        {
            "model": str(wav2vec2_folder),
            "layer": 1,
            "clusters": 2,
            "segment": "stream",
            "output": str(tmp_path / "km.safetensors"),
        }
    ]
    found = run_all(KmeansJobConfig, settings, clip, tmp_path, lambda config: fit_codebook(config, Console(quiet=True)))
    assert unread(KmeansJobConfig, found) <= RUN_ELSEWHERE | {
        "memory_fraction",
        "overwrite",
        "actors",
        "trust_remote_code",
    }


def test_trace_reads_what_it_shows(clip: Path, tmp_path: Path, whisper: Path, wav2vec2_folder: Path) -> None:
    from audiomill.report.trace.steps import trace_recording

    settings = [
        {"inputs": (str(clip / "voice.wav"),), "model": str(model), "max_seconds": 2.0}
        for model in (whisper, wav2vec2_folder)
    ]
    found = run_all(TraceConfig, settings, clip, tmp_path, trace_recording)
    left = (
        WITH_LM | TOLD_ALONE | {"output", "verbose", "codebook_layer", "lm_weight", "hotword_score", "rescore_weight"}
    )
    assert unread(TraceConfig, found) <= left


OF_CTC = {
    "beam_size_token",
    "chunk_seconds",
    "chunk_overlap_seconds",
    "coverage_score",
    "drop_special_tokens",
    "hotword_score",
    "left_context_seconds",
    "lm_weight",
    "num_best",
    "rescore_weight",
    "look_ahead_seconds",
    "trust_remote_code",
}


def test_plan_reads_what_it_shows(clip: Path, tmp_path: Path, whisper: Path) -> None:
    from audiomill.forecast.plan_job import plan_job

    def job(config: PlanJobConfig) -> None:
        plan_job(config.job(), config.forecast, Console(quiet=True))

    settings = [{"model": str(whisper), "sample_minutes": 0.05, "speakers": "auto", "quality": True}]
    found = run_all(PlanJobConfig, settings, clip, tmp_path, job)
    assert unread(PlanJobConfig, found) <= RUN_ELSEWHERE | REPORTED | WITH_LM | OF_CTC | TOLD_ALONE | {
        "cores_per_gpu",
        "low_confidence",
    }


def test_every_field_of_a_config_has_one_home() -> None:
    """A name stands for one option: two stages of a job never share one."""
    for kind in SHOWN.values():
        names = [field.name for field in flat_fields(kind)]
        assert len(set(names)) == len(names), kind
    assert dataclasses.is_dataclass(TranscribeConfig)
