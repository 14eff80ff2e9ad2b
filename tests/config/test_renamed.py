"""Names of version 0.1: options work with a line that says the new name, outputs are read and not continued."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import audiomill
from audiomill import errors
from audiomill.config import renamed
from audiomill.config.fields import flag, flat_fields, typed
from audiomill.config.jobs import TranscribeConfig
from tests.support.command_line import command_of, in_process
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import encode, noise


def test_an_old_flag_works_and_says_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(noise(8_000, 1)))
    options = ("--model", "fake://", "--segment", "none", "--engine", "local", "--no-report")
    done = in_process(tmp_path, "transcribe", "a.wav", *options, "--canary=0", "--no-retry", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert "note: --canary is called --verify-segments now" in done.stderr
    assert "note: --no-retry is called --no-fallback now" in done.stderr
    results = json.loads((tmp_path / "out" / "run.json").read_text())["results"]
    assert results["fallback"] is False and "retry" not in results


def test_an_old_key_of_a_file_and_an_old_argument_work_too(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(noise(8_000, 1)))
    lines = [
        "inputs: a.wav",
        "model: 'fake://'",
        "output: out",
        "report: false",
        "engine: local",
        "canary: 0",
        "context-seconds: 2.0",
    ]
    (tmp_path / "job.yaml").write_text("\n".join(lines))
    done = in_process(tmp_path, "transcribe", "--config", "job.yaml")
    assert done.returncode == 0 and "context_seconds is called chunk_overlap_seconds now" in done.stderr, done.stderr
    with pytest.warns(FutureWarning, match="canary is called verify_segments now"):
        assert typed(TranscribeConfig, {"canary": 2}) == {"verify_segments": 2}


def test_every_new_name_is_an_option_and_no_old_one_is_read_by_the_same_job() -> None:
    fields = {field.name for field in flat_fields(TranscribeConfig)}
    assert not fields & {old for old, new in renamed.RENAMED_OPTIONS.items() if new in fields}
    for old, new in renamed.RENAMED_JOBS.items():
        assert command_of(new) is command_of(old)
    flags = {
        option
        for job in ("transcribe", "select", "finetune", "listen", "inspect", "embed")
        for param in command_of(job).params
        for option in param.opts
    }
    assert {f"--{flag(new)}" for new in renamed.RENAMED_OPTIONS.values()} <= flags


def as_of_01(output: Path) -> None:
    """Gives the files of an output the names that version 0.1 wrote."""
    for table, names in renamed.RENAMED_COLUMNS.items():
        old = {new: old for old, new in names.items()}
        for path in (output / table).glob("*.parquet"):
            content = pq.read_table(path)
            pq.write_table(content.rename_columns([old.get(name, name) for name in content.column_names]), path)
    for path in [*(output / "ledger").glob("part-*.json"), output / "run.json"]:
        entry = json.loads(path.read_text())
        old = {new: old for old, new in renamed.RENAMED_LEDGER_KEYS.items()}
        entry = {old.get(name, name): value for name, value in entry.items()}
        if "bytes" in entry:
            entry["bytes"] = {
                table: (output / table / f"part-{entry['part']:06d}.parquet").stat().st_size for table in entry["bytes"]
            }
        path.write_text(json.dumps({**entry, **({"audiomill": "0.1.0"} if "audiomill" in entry else {})}))


def test_an_output_of_01_is_read_and_exported_and_not_continued(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(noise(16_000, 1)))
    run(tmp_path / "a.wav", tmp_path / "out", segment="none", verify_segments=1)
    expected = rows(tmp_path / "out", "segments")
    as_of_01(tmp_path / "out")
    assert "rung" in pq.read_schema(next((tmp_path / "out" / "segments").glob("*.parquet"))).names
    assert rows(tmp_path / "out", "segments") == expected
    for command in (["inspect", "out"], ["report", "out"], ["export", "out", "--format", "csv"]):
        done = in_process(tmp_path, *command)
        assert done.returncode == 0, (command, done.stderr)
    with pytest.raises(errors.ConfigMismatchError, match=f"made by audiomill 0.1.0: {audiomill.__version__} reads"):
        run(tmp_path / "a.wav", tmp_path / "out", segment="none", verify_segments=1)


def test_old_names_of_python_are_the_new_ones() -> None:
    assert audiomill.listener is audiomill.streaming_recognizer
    assert errors.RunFailed is errors.RunError and errors.OutputMismatch is errors.ConfigMismatchError
