"""forecast.html: a forecast for people, one file."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from audiomill.html.figures import bars, line
from audiomill.html.page import cards, document, notes, section, table
from audiomill.watch.progress import duration_text, size_text

_Forecast = Mapping[str, Any]


def forecast_page(found: _Forecast) -> str:
    """The page."""
    what = [(name, size_text(size)) for name, size in found["bytes"].items()]
    refused = [(name, f"{count:g}") for name, count in found["rejections"].items()]
    body = (
        f'<main id="overview">{cards(headline(found))}<p class="soft">{html.escape(_basis(found))}</p>'
        + section("How long, and what it costs", table(*machine_rows(found)) + notes(found["notes"]))
        + section("What comes out", table(("table", "size"), what))
        + section("Where the time goes", f'<div class="charts">{"".join(_charts(found))}</div>')
        + section("Size of a batch", table(*batch_rows(found)) + notes([_advice(found)]))
        + section("Rejections to expect", table(("reason", "recordings"), refused) or "<p>None were met.</p>")
        + section("Sample", table(("stratum", "recordings"), list(found["sample"]["strata"].items())))
        + "</main>"
    )
    return document(f"Forecast: audiomill {found['job']}", body)


def headline(found: _Forecast) -> list[tuple[str, str]]:
    """Figures at the top."""
    return [
        ("recordings", f"{found['recordings']:,}"),
        ("audio", f"{found['hours']:,.2f} h"),
        ("speech", f"{100 * found['speech_share']:.0f}%"),
        ("parts", f"{found['parts']:,}"),
        ("tables", size_text(sum(found["bytes"].values()))),
        ("device hours", f"{found['device_hours']:,.3g}"),
        ("on this machine", duration_text(found["wall_s_here"])),
    ]


def machine_rows(found: _Forecast) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Wall time and money for each number of machines."""
    has_money = bool(found["prices"])
    head = ["GPUs", "cores", "time", "speed", "first limit"] + ["money"] * has_money
    rows: list[Sequence[str]] = [
        [
            str(row["gpus"] or "none"),
            f"{row['cores']:,}",
            duration_text(row["wall_s"]),
            f"{row['x_real_time']:,.0f}x real time",
            row["bottleneck"],
            *([_money(row["money"])] if has_money else []),
        ]
        for row in found["machines"]
    ]
    return head, rows


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"


def batch_rows(found: _Forecast) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Batch sizes that were tried."""

    def row(each: Mapping[str, Any]) -> list[str]:
        seconds = "not tried: memory" if each["seconds"] is None else f"{each['seconds']:.2f} s"
        sizes = ["" if each[name] is None else size_text(each[name]) for name in ("peak", "predicted")]
        return [f"{each['batch_seconds']:g}", seconds, *sizes]

    return ("--batch-seconds", "time", "memory", "predicted"), [row(each) for each in found["batch_seconds"]["tried"]]


def _basis(found: _Forecast) -> str:
    sample, on = found["sample"], found["measured_on"]
    return (
        f"{', '.join(found['models'])} on {sample['minutes']:.1f} min of {', '.join(found['inputs'])}; {on['machine']}, "
        f"{on['precision']}, {on['engine']} engine. Strata are weighted by their audio; times are for the machine above."
    )


def _advice(found: _Forecast) -> str:
    batch = found["batch_seconds"]
    if not batch["tried"]:
        return f"Not tried: the sample does not fill several batches, or there was no time; default {batch['default']:g} s."
    if batch["best"] == batch["default"]:
        return f"The default of {batch['default']:g} s is as fast as any."
    return f"Fastest: --batch-seconds {batch['best']:g} (default {batch['default']:g})."


def _charts(found: _Forecast) -> list[str]:
    stages = found["stage_seconds_per_audio_hour"]
    charts = [bars("Stages", "seconds for an hour of audio", list(stages), list(stages.values()))]
    if len(found["languages"]) > 1:
        charts.append(bars("Languages", "hours of speech", list(found["languages"]), list(found["languages"].values())))
    if len(found["curve"]) > 1:
        points = [(point["audio_s"], point["seconds"]) for point in found["curve"]]
        charts.append(line("The models alone", "seconds of audio at once", "seconds", points))
    return charts
