"""An error that no model raised ends a run, with its place; an error of a model leaves the exactness check to the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiomill.audio.cutting.segment import Segment
from audiomill.audio.mixing import mixing_of
from audiomill.errors import RunError
from audiomill.models.base import Transcript
from audiomill.models.fake.model import FakeModel
from audiomill.models.load import load_tasks
from audiomill.models.precision import cpu_features
from audiomill.report.remarks import remarks
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.sources.listing import list_inputs
from audiomill.stages.cut import cut_part
from audiomill.stages.infer import infer_piece
from audiomill.stages.plan import planned_table
from audiomill.stages.sandbox import Decoder
from audiomill.storage.fs import Place
from tests.support.jobs_by_hand import job, rows, run
from tests.support.synth import RATE, encode, noise, tone


class Mumbling(FakeModel):
    """Its texts are no rows of any table: a fault of whoever makes rows of them."""

    def transcripts(self, segments: Sequence[Segment], texts: Any) -> list[Transcript]:
        return [each._replace(avg_logprob="x") for each in super().transcripts(segments, texts)]  # type: ignore[arg-type]


def test_an_error_while_rows_are_made_ends_the_run_and_names_the_place(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.wav").write_bytes(encode(tone(1.0)))
    config = job(tmp_path, tmp_path / "out", model="fake://", segment="none")
    spec, _ = resolve_run(config, resolve_tasks(config), "cpu", cpu_features())
    entries = list_inputs(config.inputs, {}, None, config.output.output).entries
    plan = planned_table(entries, [None] * len(entries), first_part=0, part_seconds=60.0)
    decoder = Decoder(spec.decode, spec.segments, {})
    piece = next(cut_part(0, plan.to_pylist(), decoder, spec.piece_samples))
    decoder.close()
    tasks = load_tasks(spec.tasks, {})
    infer_piece(piece, tasks, spec.tables, 0)
    tasks[0].model.__class__ = Mumbling
    with pytest.raises(RunError, match=r"part 0: the rows of segments could not be made \(TypeError.*rows.py:"):
        infer_piece(piece, tasks, spec.tables, 0)


def test_after_an_error_of_a_model_the_others_are_still_checked(tmp_path: Path) -> None:
    poisoned = np.full(3 * RATE, 12_348, np.int16)
    soundfile.write(tmp_path / "poisoned.wav", poisoned, RATE, subtype="PCM_16")
    for at in range(3):
        (tmp_path / f"{at}.wav").write_bytes(encode(noise(RATE + at)))
    summary = run(
        tmp_path, tmp_path / "out", model="fake://poison", segment="none", part_seconds=600.0, verify_segments=3
    )
    assert [row["reason"] for row in rows(tmp_path / "out", "rejections")] == ["model_failed"]
    assert summary["verification"]["num_segments"] == 3 and summary["verification"]["num_differing"] == 0


def conversation(kind: str) -> np.ndarray:
    """Two channels of 20 s in which two people speak in turns, each on one, or both heard by both."""
    random = np.random.default_rng(3)
    speech_TC = random.normal(0, 0.2, (20 * RATE, 2))
    turn = np.arange(20 * RATE) // (2 * RATE) % 2
    speech_TC *= np.stack([turn == 0, turn == 1], axis=1)
    if kind == "one room":
        speech_TC = speech_TC @ np.array([[1.0, 0.7], [0.7, 1.0]])
    if kind == "one person":
        speech_TC[:, 1] = 0.0
    return np.asarray(speech_TC + random.normal(0, 0.001, speech_TC.shape))


@pytest.mark.parametrize(("kind", "is_told"), [("a call", True), ("one room", False), ("one person", False)])
def test_two_people_on_two_channels_are_told_with_the_remedy(tmp_path: Path, kind: str, is_told: bool) -> None:
    soundfile.write(tmp_path / "call.wav", conversation(kind), RATE, subtype="PCM_16")
    with open(tmp_path / "call.wav", "rb") as handle:
        notes = mixing_of(handle, 0.0, 1e9, "default", False, lambda: None).notes or ""
    assert ("--channels split" in notes) == is_told
    run(tmp_path / "call.wav", tmp_path / "out", model="fake://", segment="none")
    assert any("--channels split" in note for note, _ in remarks(Place(str(tmp_path / "out")))) == is_told
