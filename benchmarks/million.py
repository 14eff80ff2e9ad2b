"""What may not grow with the corpus: inspect, score, the reader and fingerprints on an output of a million recordings.

Each step is a process of its own, so that its peak memory is its own. The output is made of one real part, whose rows are
repeated under other ids. Planning a million rows: `python -m benchmarks.plan_scale`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from benchmarks.record import save

ROWS_A_PART = 4_000
STEPS = {
    "plan": "from audiomill.storage import ledger; from audiomill.storage.fs import Place\n"
    "plan = ledger.load_plan(Place(OUT)); print(len(ledger.split_by_part(plan)))",
    "inspect": "from audiomill_jobs.main import main; import sys; sys.argv = ['audiomill', 'inspect', OUT]; main()",
    "score": "from audiomill_jobs.main import main; import sys; sys.argv = ['audiomill', 'score', OUT]; main()",
    "reader": "import audiomill; data = audiomill.open_output(OUT); n = len(data)\n"
    "print(n, data[0][0], data[n // 2][0], data[n - 1][0], sum(1 for _ in zip(data, range(100_000))))",
    "fingerprints": "import numpy as np; from audiomill.audio.fingerprint import same_sound\n"
    "r = np.random.default_rng(0); p = r.integers(-2**63, 2**63 - 1, 2 * ROWS); p[ROWS:ROWS + 1000] = p[:1000] ^ 1\n"
    "s = r.uniform(1, 14, 2 * ROWS); s[ROWS:ROWS + 1000] = s[:1000]\n"
    "print((same_sound(p, s, p, s) != np.arange(2 * ROWS)).sum())",
}
"""A step's program; OUT: the output, ROWS: its recordings."""
MEASURE = "print('peak', next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
"""Not `getrusage`: its peak is inherited from the process that started this one."""


def write_output(folder: Path, rows: int) -> Path:
    """An output of `rows` recordings with a vector each, text and reference."""
    soundfile.write(folder / "a.wav", np.random.default_rng(0).normal(0, 0.1, 48_000), 16_000)
    job = ["embed", str(folder / "a.wav"), "--model", "fake://", "--output", str(folder / "one"), "--quiet"]
    subprocess.run([sys.executable, "-m", "audiomill", *job, "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
    out = folder / "out"
    shutil.copytree(folder / "one", out)
    entry = json.loads((out / "ledger" / "part-000000.json").read_text())
    words = np.array(
        ["to", "be", "or", "not", "that", "is", "the", "question", "whether", "it", "nobler", "in", "mind", "suffer"]
    )
    names = {"recordings": "id", "segments": "id", "embeddings": "segment_id"}
    for part in range(rows // ROWS_A_PART):
        ids = [f"{part:06d}{row:014d}" for row in range(ROWS_A_PART)]
        for table, key in names.items():
            one = pq.read_table(folder / "one" / table / "part-000000.parquet")
            tiled = one.take(pa.array(np.zeros(ROWS_A_PART, np.int64)))
            tiled = _with(tiled, key, ids)
            if "recording_id" in tiled.column_names:
                tiled = _with(tiled, "recording_id", ids)
            if table == "recordings":
                chosen = np.random.default_rng(part).integers(len(words), size=(ROWS_A_PART, 12))
                tiled = _with(tiled, "reference", [" ".join(words[row]) for row in chosen])
                tiled = _with(tiled, "text", [" ".join(words[row[:11]]) for row in chosen])
            pq.write_table(tiled, out / table / f"part-{part:06d}.parquet")
        if part:
            shutil.copyfile(out / "rejections/part-000000.parquet", out / f"rejections/part-{part:06d}.parquet")
        told = {**entry, "part": part, "num_recordings": ROWS_A_PART, "num_segments": ROWS_A_PART}
        (out / "ledger" / f"part-{part:06d}.json").write_text(json.dumps(told))
    plan = pq.read_table(folder / "one" / "plan.parquet").take(pa.array(np.zeros(rows, np.int64)))
    plan = _with(plan, "id", [f"{row // ROWS_A_PART:06d}{row % ROWS_A_PART:014d}" for row in range(rows)])
    pq.write_table(_with(plan, "part", [row // ROWS_A_PART for row in range(rows)]), out / "plan.parquet")
    return out


def _with(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def measured(program: str, out: Path, rows: int) -> dict[str, float]:
    """Seconds and peak memory of one step."""
    before = time.perf_counter()
    code = f"OUT, ROWS = {str(out)!r}, {rows}\ntry:\n    exec({program!r})\nexcept SystemExit: pass\n{MEASURE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds = time.perf_counter() - before
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return {"seconds": round(seconds, 1), "peak_mb": int(done.stdout.split()[-1]) // 1024}


def main() -> None:
    """Prints and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows: int = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        out = write_output(Path(folder), rows)
        result = {step: measured(program, out, rows) for step, program in STEPS.items()}
    for step, each in result.items():
        print(f"{step:>14}: {each['seconds']:8.1f} s {each['peak_mb']:8,d} MB")
    save("million", f"python -m benchmarks.million --rows {rows}", {"rows": rows, **result})


if __name__ == "__main__":
    main()
