"""forecast.html: a forecast for people, one file."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from audiomill.html.figures import bars, line
from audiomill.html.page import cards, document, notes, section, table
from audiomill.watch.progress import duration_text, size_text

_Forecast = Mapping[str, Any]


def forecast_page(forecast: _Forecast) -> str:
    """The page."""
    what = [(name, size_text(size)) for name, size in forecast["bytes"].items()]
    refused = [(name, f"{count:g}") for name, count in forecast["rejections"].items()]
    body = (
        f'<main id="overview">{cards(headline(forecast))}<p class="soft">{html.escape(_basis(forecast))}</p>'
        + section("How long, and what it costs", table(*machine_rows(forecast)) + notes(forecast["notes"]))
        + section("What comes out", table(("table", "size"), what))
        + section("Where the time goes", f'<div class="charts">{"".join(_charts(forecast))}</div>')
        + section("Size of a batch", table(*batch_rows(forecast)) + notes([_advice(forecast)]))
        + section("Rejections to expect", table(("reason", "recordings"), refused) or "<p>None were met.</p>")
        + section("Sample", table(("stratum", "recordings"), list(forecast["sample"]["strata"].items())))
        + "</main>"
    )
    return document(f"Forecast: audiomill {forecast['job']}", body)


def headline(forecast: _Forecast) -> list[tuple[str, str]]:
    """Figures at the top."""
    return [
        ("recordings", f"{forecast['recordings']:,}"),
        ("audio", f"{forecast['hours']:,.2f} h"),
        ("speech", f"{100 * forecast['speech_share']:.0f}%"),
        ("parts", f"{forecast['parts']:,}"),
        ("tables", size_text(sum(forecast["bytes"].values()))),
        ("device hours", f"{forecast['device_hours']:,.3g}"),
        ("on this machine", duration_text(forecast["wall_s_here"])),
    ]


def machine_rows(forecast: _Forecast) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Wall time and money for each number of machines."""
    has_money = bool(forecast["prices"])
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
        for row in forecast["machines"]
    ]
    return head, rows


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"


def batch_rows(forecast: _Forecast) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Batch sizes that were tried."""

    def row(each: Mapping[str, Any]) -> list[str]:
        seconds = "not tried: memory" if each["seconds"] is None else f"{each['seconds']:.2f} s"
        sizes = ["" if each[name] is None else size_text(each[name]) for name in ("peak", "predicted")]
        return [f"{each['batch_seconds']:g}", seconds, *sizes]

    return ("--batch-seconds", "time", "memory", "predicted"), [
        row(each) for each in forecast["batch_seconds"]["tried"]
    ]


def _basis(forecast: _Forecast) -> str:
    sample, on = forecast["sample"], forecast["measured_on"]
    return (
        f"{', '.join(forecast['models'])} on {sample['minutes']:.1f} min of {', '.join(forecast['inputs'])}; {on['machine']}, "
        f"{on['precision']}, {on['engine']} engine. Strata are weighted by their audio; times are for the machine above."
    )


def _advice(forecast: _Forecast) -> str:
    batch = forecast["batch_seconds"]
    if not batch["tried"]:
        return f"Not tried: the sample does not fill several batches, or there was no time; default {batch['default']:g} s."
    if batch["best"] == batch["default"]:
        return f"The default of {batch['default']:g} s is as fast as any."
    return f"Fastest: --batch-seconds {batch['best']:g} (default {batch['default']:g})."


def _charts(forecast: _Forecast) -> list[str]:
    stages = forecast["stage_seconds_per_audio_hour"]
    charts = [bars("Stages", "seconds for an hour of audio", list(stages), list(stages.values()))]
    if len(forecast["languages"]) > 1:
        charts.append(
            bars("Languages", "hours of speech", list(forecast["languages"]), list(forecast["languages"].values()))
        )
    if len(forecast["curve"]) > 1:
        points = [(point["audio_s"], point["seconds"]) for point in forecast["curve"]]
        charts.append(line("The models alone", "seconds of audio at once", "seconds", points))
    return charts
