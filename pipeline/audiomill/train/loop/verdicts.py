"""What becomes of a round: whether its student takes over, which one is best, when a loop ends, and the line that says so."""

from __future__ import annotations

from typing import Any

from audiomill.config.train import LoopConfig
from audiomill.text.bootstrap import Comparison

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
