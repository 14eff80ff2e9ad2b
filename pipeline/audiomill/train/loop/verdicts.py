"""What becomes of a round: whether its student takes over, which one is best, when a loop ends, the line that says so, and the scores behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiomill.config.train import LoopConfig
from audiomill.errors import UsageError
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.bootstrap import Comparison, paired_bootstrap
from audiomill.text.wer import Errors, score_pair


def scored(output: Path, options: dict[str, Any]) -> dict[str, Errors]:
    """Word errors of every recording with a reference, by id.

    Raises:
        UsageError: none has one.
    """
    rows = ledger.tables(Place(str(output), options), "recordings").to_pylist()
    results = {
        row["id"]: score_pair(row["reference"], row["text"], row["language"])[0]
        for row in rows
        if row["reference"] is not None
    }
    if not results:
        raise UsageError(f"{output}: no recording has a reference text; dev and test need audio with text")
    return results


def decided(before: dict[str, Errors], after: dict[str, Errors], seed: int) -> Comparison:
    """Paired comparison on the recordings that both have."""
    shared = sorted(before.keys() & after.keys())
    rows = [(before[name].num_errors, after[name].num_errors, after[name].num_reference) for name in shared]
    return paired_bootstrap([a for a, _, _ in rows], [b for _, b, _ in rows], [n for _, _, n in rows], seed=seed)


_Metrics = dict[str, Any]


def best_of(rounds: list[_Metrics]) -> _Metrics:
    """The last round that was promoted."""
    return next(each for each in reversed(rounds) if each["promoted"])


def why_ended(rounds: list[_Metrics], loop: LoopConfig) -> str | None:
    """The stop rule that holds, or None."""
    if not rounds:
        return None
    failures = 0
    for each in reversed(rounds):
        if each["promoted"] or each["round"] <= 0:
            break
        failures += 1
    if failures >= loop.patience:
        return f"{failures} round{'s' if failures > 1 else ''} without a promotion"
    last = rounds[-1]
    if last["round"] > 0 and last["promoted"] and last["gain"] < loop.min_gain:
        return f"the last gain, {100 * last['gain']:.1f}%, is below --min-gain"
    return f"{loop.rounds} rounds done" if last["round"] >= loop.rounds else None


def takes_over(number: int, comparison: Comparison, level: float) -> bool:
    """A student must be better by more than luck; the first teacher no worse than what it was made of."""
    return comparison.after <= comparison.before if number == 0 else comparison.is_better(level)


def round_line(metrics: _Metrics) -> str:
    wer, (low, high) = 100 * metrics["wer"], (100 * each for each in metrics["interval"])
    text = f"round {metrics['round']}: test WER {wer:.2f}% ({low:.2f} to {high:.2f})"
    if metrics["teacher"] is None:
        return f"{text}, trained on the labels alone" if metrics["training"] else f"{text}, the model as it is"
    if metrics["round"] == 0:
        verdict = "promoted" if metrics["promoted"] else "worse than the model as it is: rolled back"
        return f"{text}, trained on the labels alone; the model as it is {100 * metrics['teacher_wer']:.2f}%; {verdict}"
    selection = metrics["selection"]
    decision = "promoted" if metrics["promoted"] else "rolled back"
    return (
        f"{text}, teacher {100 * metrics['teacher_wer']:.2f}%; kept {selection['num_kept']} of {selection['num_segments']} labels; "
        f"{decision} (p = {metrics['probability']:.4f}, level {metrics['level']:g})"
    )
