"""Kills with SIGKILL at random moments, then the same command again, until it ends: the tables must be the same bytes.

A Ray cluster of three nodes on this machine, corpus and output on a real S3 server behind a proxy that throttles. Victims
in turn: a node, a model actor, the driver. Prints what each kill cost. Whisper tiny.en, or another `--model`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import fsspec
import psutil
from ray.cluster_utils import Cluster

from audiomill import schema
from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save
from benchmarks.speech import write_corpus
from tests.support.faulty_proxy import FaultyProxy
from tests.support.object_store import s3_server

VICTIMS = ("node", "actor", "driver")
PART_S = 60.0


def command(corpus: str, output: str, model: str, endpoint: str, address: str | None) -> list[str]:
    """The command that is killed and repeated; without a cluster it is the undisturbed run."""
    options = ["--model", model, "--part-seconds", str(PART_S), "--quiet", "--no-report"]
    options += ["--engine", "local"] if address is None else ["--ray-address", address, "--actors", "2"]
    options += ["--storage-options", json.dumps({"endpoint_url": endpoint})]
    return [sys.executable, "-m", "audiomill", "transcribe", corpus, "--output", output, *options]


def stored(endpoint: str) -> Any:
    """The object store, not through the proxy, and never from a cache."""
    return fsspec.filesystem("s3", endpoint_url=endpoint, use_listings_cache=False, skip_instance_cache=True)


def hashes(fs: Any, output: str) -> dict[str, str]:
    """SHA-256 of every part file by table and name."""
    paths = [path for table in schema.TABLES for path in fs.glob(f"{output}/{table}/*.parquet")]
    return {"/".join(path.split("/")[-2:]): hashlib.sha256(fs.cat_file(path)).hexdigest() for path in paths}


def entries(fs: Any, output: str) -> dict[str, str]:
    """When each part was finished, by the name of its ledger entry: a part that is done twice changes its entry."""
    return {path.rsplit("/", 1)[-1]: fs.info(path)["ETag"] for path in fs.glob(f"{output}/ledger/part-*.json")}


def num_done(fs: Any, output: str) -> int:
    """Parts in the ledger: one request."""
    return len(fs.glob(f"{output}/ledger/part-*.json"))


class Victims:
    """The cluster, and whoever is to die on it."""

    def __init__(self) -> None:
        head = {"num_cpus": 2, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.workers = [self.cluster.add_node(num_cpus=4) for _ in range(2)]
        self.cluster.wait_for_nodes()

    def kill(self, kind: str, driver: psutil.Process, dice: random.Random) -> bool:
        """SIGKILL; False if there was nobody to kill just now."""
        if kind == "driver":
            driver.send_signal(signal.SIGKILL)
            return True
        if kind == "node":
            number = dice.randrange(len(self.workers))
            self.cluster.remove_node(self.workers[number], allow_graceful=False)
            self.workers[number] = self.cluster.add_node(num_cpus=4)  # as a cloud replaces it
            return True
        for process in psutil.process_iter(["cmdline"]):
            if "_Infer" in " ".join(process.info["cmdline"] or []):
                process.send_signal(signal.SIGKILL)
                return True
        return False


def disturb(
    kinds: list[str], arguments: list[str], victims: Victims, fs: Any, output: str, num_parts: int, dice: random.Random
) -> list[dict[str, Any]]:
    """Starts the command and kills, one after the other, at random moments; waits for its end."""
    before, began = entries(fs, output), time.perf_counter()
    driver = psutil.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, seen, wait = list[dict[str, Any]](), dict(before), dice.uniform(6, 16)
    for kind in kinds:
        # A driver must get something done before it dies, or nothing ever ends; the others die at any moment.
        goal = len(seen) + (kind == "driver") * dice.randint(1, 2)
        killed = False
        while driver.poll() is None and not killed:
            time.sleep(0.4)
            if time.perf_counter() - began >= wait and num_done(fs, output) >= goal:
                try:
                    killed = victims.kill(kind, driver, dice)
                except psutil.NoSuchProcess:
                    break
        if not killed:
            break
        seen = entries(fs, output)
        at_s = time.perf_counter() - began
        log.append({"victim": kind, "after_s": round(at_s, 1), "parts_at_kill": len(seen), "entries": seen})
        wait = at_s + dice.uniform(0.5, 6)
    code, after = driver.wait(), entries(fs, output)
    for entry in log:
        entry["parts_done_twice"] = sum(1 for name, tag in entry.pop("entries").items() if after.get(name) != tag)
        entry["exit"] = code
    return log


def lost_seconds(fs: Any, output: str, log: list[dict[str, Any]]) -> None:
    """Adds to each kill the audio of parts that were under way: at most one a worker, by the size of a part."""
    sizes = [json.loads(fs.cat_file(path))["duration_s"] for path in fs.glob(f"{output}/ledger/part-*.json")]
    for entry in log:
        workers = {"node": 1, "actor": 1, "driver": 2}[entry["victim"]]
        entry["lost_audio_s_at_most"] = round(workers * max(sizes), 1)


def main() -> None:
    """Prints and saves the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--throttle", type=float, default=0.05, help="share of requests answered with 503")
    parser.add_argument(
        "--model", default=str(whisper_folder()), help="fake://device: one that waits, for slow machines"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = os.getcwd()
    os.environ |= {"AWS_ACCESS_KEY_ID": "chaos", "AWS_SECRET_ACCESS_KEY": "chaos", "AWS_DEFAULT_REGION": "us-east-1"}
    dice, log, rounds, extra_s = random.Random(args.seed), list[dict[str, Any]](), 0, list[float]()
    with (
        tempfile.TemporaryDirectory() as folder,
        s3_server() as real,
        contextlib.closing(FaultyProxy(real, throttled=args.throttle, dropped=0.0)) as proxy,
    ):
        write_corpus(Path(folder) / "corpus", args.minutes * 60, None)
        fs = stored(real)
        fs.mkdir("chaos")
        fs.put(f"{folder}/corpus/", "chaos/corpus/", recursive=True)
        subprocess.run(
            command("s3://chaos/corpus", "s3://chaos/whole", args.model, proxy.url, None),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        expected = hashes(fs, "chaos/whole")
        num_parts = len(entries(fs, "chaos/whole"))
        assert expected and num_parts > 3
        victims = Victims()
        began = time.perf_counter()
        arguments = command("s3://chaos/corpus", "s3://chaos/calm", args.model, proxy.url, victims.cluster.address)
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        calm_s = time.perf_counter() - began
        assert hashes(fs, "chaos/calm") == expected
        print(f"undisturbed on the cluster: {calm_s:.1f} s", flush=True)
        while len(log) < args.kills:
            output = f"chaos/killed{rounds}"
            arguments = command("s3://chaos/corpus", f"s3://{output}", args.model, proxy.url, victims.cluster.address)
            mine, began = list[dict[str, Any]](), time.perf_counter()
            while not fs.exists(f"{output}/_SUCCESS"):
                done = len(log) + len(mine)
                kinds = [VICTIMS[number % len(VICTIMS)] for number in range(done, min(done + 3, args.kills))]
                mine += disturb(kinds, arguments, victims, fs, output, num_parts, dice)
            extra_s.append(time.perf_counter() - began - calm_s)
            assert hashes(fs, output) == expected, f"{output}: a killed run ended with other bytes"
            lost_seconds(fs, output, mine)
            log += mine
            rounds += 1
            told = ", ".join(f"{entry['victim']} at {entry['parts_at_kill']} parts" for entry in mine)
            print(f"round {rounds}: {told}; {len(expected)} part files, byte-identical", flush=True)
        victims.cluster.shutdown()
        num_refused = proxy.num_throttled
    by_victim = {
        kind: {
            "kills": len(mine),
            "parts_done_twice": sum(entry["parts_done_twice"] for entry in mine),
            "lost_audio_s_at_most_mean": round(mean(entry["lost_audio_s_at_most"] for entry in mine), 1),
        }
        for kind in VICTIMS
        if (mine := [entry for entry in log if entry["victim"] == kind])
    }
    for kind, told in by_victim.items():
        print(kind, told)
    print(f"{len(log)} kills in {rounds} rounds, {num_refused} requests throttled, every round byte-identical")
    print(f"a kill cost {sum(extra_s) / len(log):.1f} s of wall time in the mean; undisturbed {calm_s:.1f} s")
    result = {
        "undisturbed_s": round(calm_s, 1),
        "extra_wall_s_per_kill": round(sum(extra_s) / len(log), 1),
        "kills": len(log),
        "rounds": rounds,
        "requests_throttled": num_refused,
        "byte_identical": True,
        "part_files": len(expected),
        "part_s": PART_S,
        "median_kill_after_s": median(entry["after_s"] for entry in log),
        "by_victim": by_victim,
        "log": log,
    }
    save(
        "chaos",
        f"python -m benchmarks.chaos --kills {args.kills} --minutes {args.minutes:g} --model {args.model if '://' in args.model else Path(args.model).name}",
        result,
    )


if __name__ == "__main__":
    main()
