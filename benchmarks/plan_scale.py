"""Planning a manifest of a million rows: seconds, memory, size of the plan. In a process of its own."""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import tempfile
import time
from pathlib import Path

from audiomill.sources.listing import list_inputs
from audiomill.stages.plan import header_durations, planned_table
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.ledger import split_by_part
from benchmarks.record import save


def main() -> None:
    """Prints and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.jsonl"
        with manifest.open("w") as handle:
            for n in range(args.rows):
                row = {
                    "audio_filepath": f"s3://corpus/{n % 997:03d}/{n:08d}.flac",
                    "duration": 3.0 + n % 17,
                    "text": f"the text of recording number {n}",
                }
                handle.write(json.dumps(row) + "\n")
        steps = [("start", time.perf_counter())]
        entries = list_inputs((str(manifest),), {}, None, f"{folder}/out").entries
        steps.append(("list", time.perf_counter()))
        table = planned_table(entries, header_durations(entries, {}), first_part=0, part_seconds=1800)
        steps.append(("plan", time.perf_counter()))
        assert ledger.add_to_plan(Place(f"{folder}/out"), table, 0)
        steps.append(("write", time.perf_counter()))
        plan = ledger.load_plan(Place(f"{folder}/out"))
        assert plan is not None
        parts = len(split_by_part(plan))
        steps.append(("read back", time.perf_counter()))
        result = {name: round(at - before, 1) for (_, before), (name, at) in itertools.pairwise(steps)}
        result |= {
            "rows": args.rows,
            "parts": parts,
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "plan_mb": round((Path(folder) / "out" / "plan.parquet").stat().st_size / 2**20, 1),
        }
    for name, value in result.items():
        print(f"{name:>16}: {value}")
    save("plan_scale", f"python -m benchmarks.plan_scale --rows {args.rows}", result)


if __name__ == "__main__":
    main()
