"""1 to 1,000 GPUs on ten thousand to a hundred million hours, by simulation: the tables of docs/forecasts.md.md.

Rates of decoding are measured ones (`python -m benchmarks.decode`), the driver's too; that of the GPU is an argument.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from audiomill.forecast.simulate import Cluster, Outcome, Work
from benchmarks.record import save
from benchmarks.spot import Chance, Loss, simulate_spot

DECODE_S_PER_HOUR = 3600 / 7300 + 3600 / 980
"""FLAC at 16 kHz and voice activity, one core."""
BYTES_PER_HOUR = 60e6
"""FLAC of speech."""
OPENING_S = 1.0
"""A decode process for each part."""
SIMULATED_PER_ACTOR = 40
"""Parts for each actor: enough for what is steady to outweigh start and end."""
DAY_S = 86_400.0


def work(part_h: float, gpu_rate: float) -> Work:
    """One part of so many hours."""
    return Work(
        part_h * 3600, part_h * BYTES_PER_HOUR, OPENING_S + part_h * DECODE_S_PER_HOUR, part_h * 3600 / gpu_rate
    )


def run(gpus: int, hours: float, part_h: float, gpu_rate: float, life_h: float | None) -> tuple[Outcome, float, Loss]:
    """A job's outcome on so many parts as are simulated, the seconds that all of it takes, and what nodes took along."""
    parts = max(1, round(hours / part_h))
    few = min(parts, SIMULATED_PER_ACTOR * gpus)
    cluster, chance = Cluster(nodes=gpus, decoders=8), Chance(mean_life_s=None if life_h is None else life_h * 3600)
    outcome, loss = simulate_spot([work(part_h, gpu_rate)] * few, cluster, chance)
    ready = cluster.startup_s + cluster.start_s
    return outcome, ready + (outcome.wall_s - ready) * parts / few, loss


def time_text(seconds: float) -> str:
    """For people."""
    if seconds > 3 * DAY_S:
        return f"{seconds / DAY_S:,.0f} days"
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def scale_table(gpu_rate: float) -> str:
    """Wall time, speed and first limit; spot machines that last six hours in the mean."""
    rows = []
    for hours, part_h in ((1e4, 1.0), (1e6, 4.0), (1e8, 4.0)):
        for gpus in (1, 10, 100, 1000):
            outcome, wall_s, _ = run(gpus, hours, part_h, gpu_rate, None)
            spot, spot_s, loss = run(gpus, hours, part_h, gpu_rate, 6.0)
            lost = 100 * loss.lost_s / max(1e-9, sum([part_h * 3600 / gpu_rate]) * spot.audio_s / (part_h * 3600))
            limit = f"{outcome.bottleneck} ({100 * _share(outcome):.0f}% busy)"
            rows.append(
                [
                    f"{hours:,.0f}",
                    f"{gpus:,}",
                    f"{part_h:g} h",
                    time_text(wall_s),
                    f"{hours * 3600 / wall_s:,.0f}x",
                    limit,
                    time_text(spot_s),
                    f"{lost:.1f}%",
                ]
            )
            print(rows[-1], flush=True)
    head = ["hours", "GPUs", "part", "time", "real time", "first limit", "time on spot", "work lost on spot"]
    return table(head, rows)


def _share(outcome: Outcome) -> float:
    return min(1.0, max(outcome.device_busy, outcome.decode_busy, outcome.network_busy, outcome.driver_busy))


def part_table(gpu_rate: float) -> str:
    """What the size of a part costs, on 100 spot GPUs."""
    rows = []
    for part_h in (0.1, 0.5, 1.0, 4.0, 16.0):
        outcome, _, loss = run(100, 1e5, part_h, gpu_rate, 6.0)
        calm, *_ = run(100, 1e5, part_h, gpu_rate, None)
        done = outcome.audio_s / gpu_rate
        rows.append(
            [
                f"{part_h:g} h",
                f"{3600 * part_h / gpu_rate:,.0f} s",
                f"{100 * loss.lost_s / done:.2f}%",
                f"{100 * min(1.0, calm.driver_busy):.0f}%",
                f"{100 * outcome.device_busy:.0f}%",
                f"{1e6 / part_h * 4:,.0f}",
            ]
        )
        print(rows[-1], flush=True)
    return table(
        ["part", "device time a part", "work lost on spot", "driver busy", "devices busy", "files for 1,000,000 h"],
        rows,
    )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu-rate", type=float, default=400.0, help="audio seconds a second of one GPU")
    args = parser.parse_args()
    scale, sizes = scale_table(args.gpu_rate), part_table(args.gpu_rate)
    print(f"\n{scale}\n\n{sizes}\n")
    save(
        "scale",
        f"python -m benchmarks.scale --gpu-rate {args.gpu_rate:g}",
        {"scale": scale.split("\n"), "parts": sizes.split("\n")},
    )


if __name__ == "__main__":
    main()
