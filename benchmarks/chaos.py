"""Kills with SIGKILL at random moments, then the same command again, until it ends: the tables must be the same bytes.

Victims in turn: the driver, a model actor, a decode worker. Prints what each kill cost. Real weights.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from benchmarks.record import save
from benchmarks.speech import write_corpus
from jobs.demo import whisper_folder
from pipeline import schema

VICTIMS = {"driver": "jobs.cli transcribe", "actor": "_Infer", "decode worker": "pipeline.run.decode_worker"}


def command(corpus: Path, output: Path, engine: str) -> list[str]:
    """The command that is killed and repeated."""
    options = ["--model", str(whisper_folder()), "--engine", engine, "--part-seconds", "60", "--quiet"]
    return [sys.executable, "-m", "jobs.cli", "transcribe", str(corpus), "--output", str(output), *options]


def hashes(output: Path) -> dict[str, str]:
    """SHA-256 of every part file."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for table in schema.TABLES
        for path in (output / table).glob("*.parquet")
    }


def show_difference(one: Path, two: Path) -> None:
    """Prints the rows in which two part files differ."""
    before, after = (pq.read_table(path).to_pylist() if path.exists() else [] for path in (one, two))
    print(f"{one.name} in {one.parent.name}: {len(before)} rows undisturbed, {len(after)} rows after kills")
    for old, new in zip(before, after, strict=False):
        if old != new:
            print({name: (old[name], new[name]) for name in old if old[name] != new[name]})


def done(output: Path) -> int:
    return len(list((output / "ledger").glob("part-*.json")))


def find(victim: str, driver: int) -> psutil.Process | None:
    """A running process of the kind, the driver itself or below it or Ray's."""
    if victim == "driver":
        return psutil.Process(driver)
    for process in psutil.process_iter(["cmdline"]):
        if VICTIMS[victim] in " ".join(process.info["cmdline"] or []) and process.pid != driver:
            return process
    return None


def kill_once(victim: str, corpus: Path, output: Path, engine: str, dice: random.Random) -> dict[str, Any]:
    """Starts a run, kills the victim at a random moment; returns what was done before and after."""
    before, began = done(output), time.perf_counter()
    driver = subprocess.Popen(command(corpus, output, engine), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait = dice.uniform(3, 16)
    killed = False
    while driver.poll() is None and not killed:
        time.sleep(0.05)
        if time.perf_counter() - began < wait:
            continue
        process = find(victim, driver.pid)
        if process is not None:
            try:
                process.send_signal(signal.SIGKILL)
                killed = True
            except psutil.NoSuchProcess:
                continue
    at = done(output)
    code = driver.wait()
    return {
        "victim": victim,
        "killed": killed,
        "after_s": round(wait, 1),
        "parts_before": before,
        "parts_at_kill": at,
        "exit": code,
    }


def main() -> None:
    """Prints and saves the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = os.getcwd()
    dice, log = random.Random(args.seed), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        corpus, whole = Path(folder) / "corpus", Path(folder) / "whole"
        write_corpus(corpus, args.minutes * 60, None)
        subprocess.run(command(corpus, whole, "local"), check=True, stdout=subprocess.DEVNULL)
        expected, rounds = hashes(whole), 0
        while sum(entry["killed"] for entry in log) < args.kills:
            output = Path(folder) / f"killed{rounds}"
            while not (output / "_SUCCESS").exists():
                kills = sum(entry["killed"] for entry in log)
                if kills >= args.kills:
                    subprocess.run(
                        command(corpus, output, "ray"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                    )
                    break
                log.append(kill_once(list(VICTIMS)[kills % 3], corpus, output, "ray", dice))
                print(log[-1], flush=True)
            found = hashes(output)
            for name in sorted(expected.keys() | found.keys()):
                if expected.get(name) != found.get(name):
                    show_difference(whole / name, output / name)
            assert found == expected, "a killed run ended with other bytes"
            rounds += 1
            print(f"round {rounds}: {len(expected)} part files, byte-identical to the undisturbed run", flush=True)
    kills = sum(entry["killed"] for entry in log)
    print(f"{kills} kills in {rounds} rounds, every round ended byte-identical")
    save(
        "chaos",
        f"python -m benchmarks.chaos --kills {args.kills}",
        {"kills": kills, "rounds": rounds, "byte_identical": True, "log": log},
    )


if __name__ == "__main__":
    main()
