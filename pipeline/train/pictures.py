"""Pictures of selection and self-training, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from audiomill.train.fit.history import svg

Bins = Sequence[tuple[float, float, int]]


def reliability_picture(bins: Bins, title: str) -> str:
    """Expected against true word error rate, a dot for each bin; on the line it is as said."""
    figure = Figure(figsize=(4.6, 4.2))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], linestyle=":", color="gray")
    axes.plot([100 * said / 100 for said, _, _ in bins], [true for _, true, _ in bins], marker="o")
    axes.set_xlabel("expected word error rate")
    axes.set_ylabel("true word error rate")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    return svg(figure)


def hours_picture(kept: float, dropped: Mapping[str, Mapping[str, Any]]) -> str:
    """Hours kept and dropped by reason, as bars."""
    names = ["kept", *dropped]
    hours = [kept, *(float(each["hours"]) for each in dropped.values())]
    figure = Figure(figsize=(7, 0.5 + 0.35 * len(names)))
    axes = figure.add_subplot()
    axes.barh(names[::-1], hours[::-1], color=["tab:orange"] * len(dropped) + ["tab:green"])
    axes.set_xlabel("hours of audio")
    axes.grid(alpha=0.3, axis="x")
    figure.tight_layout()
    return svg(figure)


def rounds_picture(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Test WER of every round with its interval; rounds that were rolled back are hollow."""
    figure = Figure(figsize=(7, 3.4))
    axes = figure.add_subplot()
    for each in rounds:
        low, high = (100 * value for value in each["interval"])
        color = "tab:green" if each["promoted"] else "tab:red"
        axes.plot([each["round"]] * 2, [low, high], color=color, linewidth=2)
        axes.plot(
            each["round"], 100 * each["wer"], "o", color=color, markerfacecolor=color if each["promoted"] else "white"
        )
    axes.set_xticks([each["round"] for each in rounds])
    axes.set_xlabel("round (0: teacher trained on the labels alone)")
    axes.set_ylabel("test WER [%]")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    return svg(figure)
