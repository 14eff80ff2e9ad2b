"""The select job: outputs of transcribe -> pseudo-labels, what was dropped and why, and a page to listen to it.

OUTPUT/selected.parquet    kept segments with text, expected errors and where their audio lies
OUTPUT/dropped.parquet     the others, with reason and detail
OUTPUT/manifest.jsonl      kept segments for NeMo, Hugging Face datasets and ourselves
OUTPUT/cuts.jsonl.gz       the same for Lhotse
OUTPUT/summary.json, report.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from audiomill.audio.fingerprint import same_sound
from audiomill.config.select import SelectConfig, SelectJobConfig
from audiomill.errors import InputError, UsageError
from audiomill.models.ctc.spelling import user_lines
from audiomill.storage.fs import Place
from audiomill.storage.part_files import to_bytes
from audiomill.text.calibrate import calibration_json, reliability
from audiomill.text.normalize import units_of
from audiomill.text.scripts import units
from audiomill.train.select.candidates import Candidates, calibrated, read_candidates
from audiomill.train.select.held_out import HeldOut, read_held_out
from audiomill.train.select.page import selection_page
from audiomill.train.select.rules import (
    KEPT,
    Verdict,
    doubt,
    judged,
    leaked_texts,
    rules_of,
    same_texts,
    within_budget,
)
from audiomill.train.select.written import export_clips, lhotse_cuts, manifest_lines

_SELECTED = pa.schema(
    [
        ("id", pa.string()),
        ("recording_id", pa.string()),
        ("source", pa.string()),
        ("member", pa.string()),
        ("kind", pa.string()),
        ("position", pa.int64()),
        ("size", pa.int64()),
        ("channel", pa.int32()),
        ("offset", pa.float64()),
        ("duration", pa.float64()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("speaker", pa.string()),
        ("teacher", pa.string()),
        ("confidence", pa.float32()),
        ("self_consistency", pa.float32()),
        ("disagreement", pa.float32()),
        ("lm_score", pa.float32()),
        ("expected_wer", pa.float32()),
        ("reference", pa.string()),
    ]
)
"""A kept segment; a dropped one has `reason` and `detail` too. `reference`: text that came with the audio, if any: it is
never used to select."""
_DROPPED = pa.schema([*_SELECTED, ("reason", pa.string()), ("detail", pa.string())])
_Report = dict[str, Any]


def select_labels(config: SelectJobConfig, console: Console) -> _Report:
    """Selects pseudo-labels.

    Args:
        config: the job; its inputs are outputs of `audiomill transcribe`.
        console: for notes.

    Returns:
        Hours kept and dropped by reason, and what is expected of the kept ones; also OUTPUT/summary.json.

    Raises:
        InputError: an input holds no transcripts.
        UsageError: nothing is left.
    """
    rules, options = config.select, config.output.storage_options
    output = Place(config.output.output, options)
    if output.join("summary.json").exists() and not config.output.overwrite:
        raise UsageError(f"--output {config.output.output}: holds a selection; choose another folder or --overwrite it")
    candidates = read_candidates(config.inputs, rules, options)
    calibration = None
    if rules.calibrate is not None:
        candidates, calibration, fitted = calibrated(candidates, rules, options)
        about = {name: calibration[name] for name in ("num_segments", "wer", "error")}
        teachers = sorted({row["teacher"] for row in candidates.rows})
        output.join("calibration.json").write(calibration_json(fitted, {**about, "teacher": teachers}))
    held_out = read_held_out(rules.held_out, options) if rules.held_out else None
    verdicts = verdicts_of(candidates, rules, held_out)
    report = _report(candidates, verdicts, calibration)
    report["teacher"] = sorted({row["teacher"] for row in candidates.rows})
    _write(candidates, verdicts, output, rules.export_audio)
    page = selection_page(report, candidates, verdicts, rules.listen, options)
    output.join("report.html").write(page.encode())
    output.join("summary.json").write(json.dumps(report, indent=1).encode())
    if not report["num_kept"]:
        reasons = ", ".join(f"{each['count']} {name}" for name, each in report["dropped"].items())
        raise UsageError(
            f"every segment was dropped ({reasons}); see {config.output.output}/report.html and loosen a rule"
        )
    return report


def verdicts_of(candidates: Candidates, config: SelectConfig, held_out: HeldOut | None) -> list[Verdict]:
    """What becomes of each candidate, in their order."""
    rules = rules_of(config, _words(config.vocabulary, candidates))
    verdicts = [judged(label, rules) for label in candidates.labels]
    if held_out is not None:
        _drop_leaks(candidates, verdicts, held_out)
    if not config.keep_same_audio:
        _drop_same_audio(candidates, verdicts)
    is_kept = [verdict is KEPT for verdict in verdicts]
    for at, is_same in enumerate(same_texts(candidates.labels, is_kept, config.max_same_text)):
        if is_same:
            verdicts[at] = Verdict("same_text", f"expected at most {config.max_same_text} of one text")
    is_kept = [verdict is KEPT for verdict in verdicts]
    beyond = within_budget(
        candidates.labels,
        is_kept,
        config.budget_seconds(),
        config.max_expected_wer,
        config.balance_by,
        config.max_group_ratio,
    )
    for at, verdict in beyond.items():
        verdicts[at] = verdict
    return verdicts


def _words(vocabulary: str | None, candidates: Candidates) -> frozenset[str] | None:
    if vocabulary == "calibrate" and candidates.words is None:
        raise UsageError("--vocabulary calibrate needs --calibrate OUTPUT")
    if vocabulary is None or vocabulary == "calibrate":
        return candidates.words if vocabulary else None
    place = Place(vocabulary, {})
    if not place.exists():
        raise InputError(f"--vocabulary {vocabulary}: no such file; expected a word a line, or `calibrate`")
    lines = user_lines(place.read(), f"--vocabulary {vocabulary}")
    return frozenset(word for line in lines for word in units_of(line, None))


def _drop_leaks(candidates: Candidates, verdicts: list[Verdict], held_out: HeldOut) -> None:
    by_text = leaked_texts(candidates.labels, held_out.texts)
    same = same_sound(candidates.file_hashes, candidates.lengths, held_out.file_hashes, held_out.lengths)
    for at, row in enumerate(candidates.rows):
        if (row["source"], row["member"]) in held_out.recordings:
            verdicts[at] = Verdict("held_out_recording", "expected a recording that is not held out")
        elif same[at] >= 0:
            verdicts[at] = Verdict("held_out_audio", "expected another sound than the held-out ones")
        elif by_text[at]:
            verdicts[at] = Verdict("held_out_text", "expected another text than the held-out ones")


def _drop_same_audio(candidates: Candidates, verdicts: list[Verdict]) -> None:
    """Of segments that sound the same the first one stays."""
    survivors = [at for at, verdict in enumerate(verdicts) if verdict is KEPT]
    file_hashes, lengths = candidates.file_hashes[survivors], candidates.lengths[survivors]
    first = same_sound(file_hashes, lengths, file_hashes, lengths)
    for number, other in enumerate(first.tolist()):
        if 0 <= other < number:
            twin = candidates.rows[survivors[other]]["id"]
            verdicts[survivors[number]] = Verdict("same_audio", f"expected a sound of its own, got that of {twin}")


def _report(candidates: Candidates, verdicts: Sequence[Verdict], calibration: _Report | None) -> _Report:
    """Counts and hours; where references came with the audio, the true errors of what is kept, which nothing used."""
    survivors = [at for at, verdict in enumerate(verdicts) if verdict is KEPT]
    words = [max(1, len(units(candidates.labels[at].text))) for at in survivors]
    doubts = [doubt(candidates.labels[at]) for at in survivors]
    counts = Counter(verdict.reason for verdict in verdicts if verdict is not KEPT)
    hours: Counter[str] = Counter()
    for at, verdict in enumerate(verdicts):
        hours[verdict.reason] += candidates.labels[at].seconds / 3600  # type: ignore[assignment]
    report: _Report = {
        "num_segments": len(verdicts),
        "num_kept": len(survivors),
        "hours": sum(label.seconds for label in candidates.labels) / 3600,
        "hours_kept": sum(candidates.labels[at].seconds for at in survivors) / 3600,
        "expected_wer": float(np.average(doubts, weights=words)) if survivors else None,
        "true_wer": candidates.true_wer(survivors),
        "true_wer_of_all": candidates.true_wer(range(len(verdicts))),
        "dropped": {name: {"count": count, "hours": hours[name]} for name, count in counts.most_common()},
        "calibration": calibration,
    }
    known = candidates.with_reference(range(len(verdicts)))
    if known:
        bins, error = reliability(
            np.array([doubt(candidates.labels[at]) for at in known]), np.array([candidates.wer(at) for at in known])
        )
        report["reliability"] = {"bins": bins, "error": error}
    return report


def _write(candidates: Candidates, verdicts: Sequence[Verdict], output: Place, with_audio: bool) -> None:
    survivors = [row for row, verdict in zip(candidates.rows, verdicts, strict=True) if verdict is KEPT]
    lost = [
        {**row, "reason": verdict.reason, "detail": verdict.detail}
        for row, verdict in zip(candidates.rows, verdicts, strict=True)
        if verdict is not KEPT
    ]
    output.join("selected.parquet").write(to_bytes(pa.Table.from_pylist(survivors, _SELECTED)))
    output.join("dropped.parquet").write(to_bytes(pa.Table.from_pylist(lost, _DROPPED)))
    named = export_clips(survivors, output) if with_audio else survivors
    output.join("manifest.jsonl").write(manifest_lines(named))
    output.join("cuts.jsonl.gz").write(lhotse_cuts(named))


def selection_lines(report: _Report, output: str) -> list[str]:
    """The end of a selection, for people."""
    expected = "" if report["expected_wer"] is None else f", expected WER {100 * report['expected_wer']:.1f}%"
    true = (
        ""
        if report["true_wer"] is None
        else (
            f"; against the texts that came with the audio: {100 * report['true_wer']:.1f}% of the kept, "
            f"{100 * report['true_wer_of_all']:.1f}% of all"
        )
    )
    lines = [
        f"kept {report['num_kept']} of {report['num_segments']} segments, {report['hours_kept']:.2f} of {report['hours']:.2f} h{expected}{true}"
    ]
    lines += [f"dropped {each['count']} ({each['hours']:.2f} h): {name}" for name, each in report["dropped"].items()]
    lines.append(f"pseudo-labels: {output} (use it as --pseudo); listen to what was dropped: {output}/report.html")
    return lines
