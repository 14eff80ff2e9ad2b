"""A table is added by its file, its option and one line: nothing else of the package changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.support.synth import RATE, encode, noise

ROOT = Path(__file__).parents[2]
TABLE = '''"""The peaks table: the loudest sample of each segment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from audiomill.config.jobs import JobConfig
from audiomill.models.batch import Batch
from audiomill.schema import column
from audiomill.tables.output import ModelRequest, Output, OutputRun

_SCHEMA = pa.schema(
    [
        column("segment_id", pa.string(), "joins segments.id"),
        column("recording_id", pa.string(), "joins recordings.id"),
        column("peak", pa.int32(), "of the samples"),
    ]
)


def _resolve_run(job: JobConfig, asked: Sequence[ModelRequest]) -> OutputRun | None:
    return OutputRun(_SCHEMA)


def _rows(batch: Batch, run: OutputRun) -> pa.Table:
    segments = [each.segment for each in batch.stored]
    rows = [
        {"segment_id": s.id, "recording_id": s.recording_id, "peak": int(np.abs(s.core.pcm_T.astype(int)).max())}
        for s in segments
    ]
    return pa.Table.from_pylist(rows, schema=run.schema)


PEAKS = Output(name="peaks", documented={"peaks": _SCHEMA}, resolve_run=_resolve_run, rows=_rows)
'''


def test_a_table_of_somebody_else_is_written_with_every_part(tmp_path: Path) -> None:
    package = tmp_path / "package"
    for source, name in ((ROOT / "pipeline", "audiomill"), (ROOT / "jobs", "audiomill_jobs")):
        shutil.copytree(source / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "audiomill" / "tables" / "peaks.py").write_text(TABLE)
    outputs = package / "audiomill" / "tables" / "outputs.py"
    line = "from audiomill.tables.posteriors import POSTERIORS\n"
    text = outputs.read_text()
    assert line in text and "TRANSCRIPTS, QUALITY)" in text
    text = text.replace(line, line.replace("posteriors", "peaks").replace("POSTERIORS", "PEAKS") + line)
    outputs.write_text(text.replace("TRANSCRIPTS, QUALITY)", "TRANSCRIPTS, QUALITY, PEAKS)"))
    (tmp_path / "in").mkdir()
    sounds = [np.concatenate([noise(RATE), np.full(9, 20_000 + n, np.int16)]) for n in range(3)]
    for number, pcm in enumerate(sounds):
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(pcm))
    command = ["transcribe", "in", "--model", "fake://", "--output", "out", "--segment", "fixed", "--engine", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "audiomill", *command, "--no-report"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (part,) = (tmp_path / "out" / "peaks").glob("*.parquet")
    peaks, segments = pq.read_table(part), pq.read_table(tmp_path / "out" / "segments" / part.name)
    assert peaks.column("segment_id").to_pylist() == segments.column("id").to_pylist()
    assert sorted(peaks.column("peak").to_pylist()) == [20_000, 20_001, 20_002]
    assert "peaks" in (tmp_path / "out" / "_SUCCESS").read_text()
