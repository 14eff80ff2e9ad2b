"""Transcripts on disk -> candidates for pseudo-labels, with every sign of doubt that can be had. N segments, D features."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.config.select import SelectConfig
from audiomill.errors import InputError
from audiomill.models.ctc.ngram import NgramModel, local_file
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.conditions import check_measured, conditions_of, with_quality
from audiomill.tables.rows import metadata_of
from audiomill.tables.voice_tables import voices_of
from audiomill.text.calibrate import SIGNS, Calibration, cross_fitted, fit_calibration, reliability, signs_of
from audiomill.text.normalize import units_of
from audiomill.text.repetition import num_repeats
from audiomill.text.scripts import is_unspaced, join_words, units
from audiomill.text.wer import NO_ERRORS, Errors, score_pair
from audiomill.train.select.rules import LabelCandidate

DISAGREEMENT, NUM_FEATURES = len(SIGNS), len(SIGNS) + 2
"""Column of `features_of`, and how many it has."""
MIN_CALIBRATION = 20
"""Fewer labelled segments say nothing about how far signs of doubt can be trusted."""
SPEAKER_COLUMNS = ("speaker", "speaker_id", "speaker_name")


@dataclass(frozen=True)
class Candidates:
    """Segments in plan order. `rows`: as they are written; `words`: of the labelled audio's texts, None without any."""

    rows: list[dict[str, Any]]
    labels: list[LabelCandidate]
    file_hashes: NDArray[np.int64]
    lengths: NDArray[np.float64]
    words: frozenset[str] | None = None

    def wer(self, at: int) -> float:
        """True word error rate of one segment that has a reference."""
        return self._errors(at).rate

    def true_wer(self, numbers: Iterable[int]) -> float | None:
        """Of those that have a reference, together; None if none has."""
        errors = [self._errors(at) for at in self.with_reference(numbers)]
        return sum(errors, NO_ERRORS).rate if errors else None

    def with_reference(self, numbers: Iterable[int]) -> list[int]:
        return [at for at in numbers if self.rows[at]["reference"] is not None]

    def _errors(self, at: int) -> Errors:
        return score_pair(self.rows[at]["reference"], self.rows[at]["text"], self.rows[at]["language"])[0]


def read_candidates(inputs: Sequence[str], config: SelectConfig, options: dict[str, Any]) -> Candidates:
    """Every segment of outputs of transcribe.

    Raises:
        InputError: one holds no transcripts.
    """
    model = NgramModel(local_file(Place(config.lm, options), "--lm")) if config.lm else None
    compare_with = _texts_of(Place(config.compare_with, options)) if config.compare_with else None
    conditions = conditions_of(config.where)
    rows: list[dict[str, Any]] = []
    labels: list[LabelCandidate] = []
    file_hashes: list[int] = []
    for name in inputs:
        place = Place(name, options)
        run = _run_of(place)
        recordings = {row["id"]: row for row in ledger.tables(place, "recordings").to_pylist()}
        plan = {row["id"]: row for row in _plan(place)}
        check_measured(place, conditions)
        segments = [
            row
            for part, some in ledger.each_part(place, "segments")
            for row in with_quality(place, part, some.to_pylist(), conditions)
        ]
        voices = voices_of(place)
        alone = {row["id"] for row in recordings.values() if row["num_segments"] == 1}
        for segment in segments:
            recording = recordings[segment["recording_id"]]
            row = _row(segment, recording, plan[segment["recording_id"]], run, segment["recording_id"] in alone)
            row["speaker"] = _speaker(recording, segment, voices)
            label = _label(segment, row, model, compare_with)
            unmet = next((str(condition) for condition in conditions if not condition.holds(segment)), None)
            label = dataclasses.replace(label, unmet=unmet)
            row |= {"disagreement": label.disagreement, "lm_score": label.lm_score}
            rows.append(row)
            labels.append(label)
            file_hashes.append(segment["fingerprint"])
    lengths = np.array([label.seconds for label in labels], np.float64)
    return Candidates(rows, labels, np.array(file_hashes, np.int64), lengths)


def _run_of(place: Place) -> str:
    """The model that wrote an output, or an error."""
    if not place.join("run.json").exists():
        raise InputError(f"{place.url}: no output of audiomill; expected the --output of a transcribe run")
    text = ledger.tables(place, "segments", ["text"]).column("text")
    if not len(text) or text.null_count == len(text):
        raise InputError(f"{place.url}: holds no transcripts; expected the --output of a finished transcribe run")
    name = json.loads(place.join("run.json").read()).get("model_name")
    return name if isinstance(name, str) else ", ".join(name or [])


def _plan(place: Place) -> list[dict[str, Any]]:
    plan = ledger.load_plan(place)
    assert plan is not None, "an output with rows has a plan"
    result: list[dict[str, Any]] = plan.select(["id", "kind", "position", "size"]).to_pylist()
    return result


def _row(
    segment: dict[str, Any], recording: dict[str, Any], plan: dict[str, Any], teacher: str, is_alone: bool
) -> dict[str, Any]:
    """A row of `selection.SELECTED`. A reference is that of the whole recording: only a lone segment can have it."""
    return {
        "id": segment["id"],
        "recording_id": segment["recording_id"],
        **{name: recording[name] for name in ("source", "member")},
        **{name: plan[name] for name in ("kind", "position", "size")},
        "channel": segment["channel"],
        "offset": segment["start_s"],
        "duration": segment["stop_s"] - segment["start_s"],
        "text": segment["text"],
        "language": segment["language"],
        "speaker": "",
        "teacher": teacher,
        "confidence": segment["confidence"],
        "self_consistency": segment["self_consistency"],
        "expected_wer": None,
        "reference": recording["reference"] if is_alone else None,
    }


def _speaker(recording: dict[str, Any], segment: dict[str, Any], voices: Mapping[Any, Mapping[str, Any]]) -> str:
    """The manifest's speaker; else the voice, the speaker of the recording, or its channel."""
    metadata = metadata_of(recording)
    named = [str(metadata[name]) for name in SPEAKER_COLUMNS if metadata.get(name) is not None]
    voice = voices.get((recording["id"], segment["speaker"]))
    if named or voice is not None:
        return named[0] if named else str(voice["voice"] if voice is not None else "")
    return f"{recording['id']}/{segment['speaker'] or segment['channel'] or 0}"


def _label(
    segment: dict[str, Any], row: dict[str, Any], model: NgramModel | None, compare_with: dict[str, Any] | None
) -> LabelCandidate:
    text = segment["text"] or ""
    words = units_of(text, segment["language"])
    is_shard = bool(row["member"])
    return LabelCandidate(
        id=row["id"],
        recording_id=row["recording_id"],
        text=text,
        seconds=row["duration"],
        source=row["source"] if is_shard else row["source"].rsplit("/", 1)[0],
        speaker=row["speaker"],
        language=segment["language"],
        confidence=segment["confidence"],
        self_consistency=segment["self_consistency"],
        disagreement=None if compare_with is None else _disagreement(segment, text, compare_with),
        lm_score=None if model is None else _lm_score(text, model),
        language_probability=segment["language_probability"],
        fallback_level=segment["fallback_level"],
        failed_checks=tuple(segment["failed_checks"] or ()),
        compression_ratio=segment["compression_ratio"],
        repeats=num_repeats(words),
    )


def _lm_score(text: str, model: NgramModel) -> float:
    """Natural logarithm a word; a letter where a script has no blanks and the text was not cut into words either."""
    words = text.split()
    if len(words) == 1 and is_unspaced(text):
        words = units(text)
    return model.score(words) / max(1, len(words))


def _texts_of(place: Place) -> dict[str, Any]:
    """Of another output: texts by segment, and timed words by recording and channel."""
    _run_of(place)
    by_segment: dict[str, str] = {}
    by_track: defaultdict[tuple[str, Any], list[tuple[float, str]]] = defaultdict(list)
    for row in ledger.tables(place, "segments").to_pylist():
        by_segment[row["id"]] = row["text"] or ""
        for word in _timed_words(row):
            by_track[row["recording_id"], row["channel"]].append(word)
    return {"segments": by_segment, "tracks": by_track}


def _timed_words(row: dict[str, Any]) -> list[tuple[float, str]]:
    """Words with the middle of their time; spread evenly where the times are not known."""
    if row["words"]:
        return [((word["start_s"] + word["stop_s"]) / 2, word["word"].strip()) for word in row["words"]]
    words = units(row["text"] or "")
    step = (row["stop_s"] - row["start_s"]) / max(1, len(words))
    return [(row["start_s"] + (at + 0.5) * step, word) for at, word in enumerate(words)]


def _disagreement(segment: dict[str, Any], text: str, compare_with: dict[str, Any]) -> float | None:
    """Word error rate between two models' texts: of the same segment, or of the words said in its time."""
    other = compare_with["segments"].get(segment["id"])
    if other is None:
        track = compare_with["tracks"].get((segment["recording_id"], segment["channel"]))
        if track is None:
            return None
        other = join_words([word for at, word in track if segment["start_s"] <= at < segment["stop_s"]])
    return min(1.0, score_pair(text, other, segment["language"])[0].rate)


def features_of(labels: Sequence[LabelCandidate]) -> NDArray[np.float64]:
    """features_ND: larger for more doubt. What was not measured is the same for all, so it says nothing."""
    return np.array(
        [
            (
                *signs_of(label.confidence, label.self_consistency, label.fallback_level, label.text, label.seconds),
                label.disagreement or 0.0,
                -(label.lm_score or 0.0),
            )
            for label in labels
        ],
        np.float64,
    ).reshape(len(labels), NUM_FEATURES)


def calibrated(
    candidates: Candidates, config: SelectConfig, options: dict[str, Any]
) -> tuple[Candidates, dict[str, Any], Calibration]:
    """The candidates with the errors to expect of them, learnt from labelled audio that the same model transcribed.

    Returns:
        The candidates, how well the expectation does on labelled audio that it was not fitted to, and a calibration of what
        a transcript tells by itself, for transcripts to come.

    Raises:
        InputError: too little labelled audio.
    """
    assert config.calibrate is not None, "there is labelled audio"
    known = read_candidates([config.calibrate], dataclasses.replace(config, compare_with=None), options)
    numbers = known.with_reference(range(len(known.rows)))
    if len(numbers) < MIN_CALIBRATION:
        raise InputError(
            f"--calibrate {config.calibrate}: expected at least {MIN_CALIBRATION} segments with a reference text (recordings of "
            f"one segment), got {len(numbers)}"
        )
    features = features_of([known.labels[at] for at in numbers])
    if config.compare_with is not None:  # the labelled audio has no second opinion: it cannot be calibrated
        features[:, DISAGREEMENT] = 0.0
    wer = np.array([min(1.0, known.wer(at)) for at in numbers])
    expected = fit_calibration(features, wer).expected_wer(_same_columns(features_of(candidates.labels), config))
    bins, error = reliability(cross_fitted(features, wer), wer)
    labels = [
        dataclasses.replace(label, expected_wer=float(value))
        for label, value in zip(candidates.labels, expected, strict=True)
    ]
    rows = [{**row, "expected_wer": float(value)} for row, value in zip(candidates.rows, expected, strict=True)]
    words = frozenset(
        word for at in numbers for word in units_of(known.rows[at]["reference"], known.rows[at]["language"])
    )
    report = {"num_segments": len(numbers), "wer": known.true_wer(numbers), "bins": bins, "error": error}
    return (
        dataclasses.replace(candidates, rows=rows, labels=labels, words=words),
        report,
        fit_calibration(features[:, : len(SIGNS)], wer),
    )


def _same_columns(features_ND: NDArray[np.float64], config: SelectConfig) -> NDArray[np.float64]:
    if config.compare_with is not None:
        features_ND[:, DISAGREEMENT] = 0.0
    return features_ND
