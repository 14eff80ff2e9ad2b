"""The simulation of `audiomill.forecast.simulate` beside real runs on Ray clusters of one, two and three nodes.

The model is one that waits as a GPU lets a CPU wait, so that nodes on one machine do not take its cores from each other;
rates come from the run on one node, and the other two are forecast from them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from ray.cluster_utils import Cluster as RayCluster

from audiomill.config.stages import DecodeConfig
from audiomill.forecast.simulate import Cluster, Work
from audiomill.stages.sandbox import Decoder
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from benchmarks.record import save
from benchmarks.speech import write_corpus
from benchmarks.spot import Chance, simulate_spot
from tests.support.synth import cutting

STAGES = ("read", "decode", "resample", "segment")
DISPATCH_S = 0.03


def opening_s(recording: Path) -> float:
    """Until a new decode process has read its first recording, less what that takes later."""
    row = {"source": str(recording), "member": "", "kind": "file", "position": 0, "size": None, "reason": None}
    row |= dict.fromkeys(("span_start_s", "span_duration_s", "reference", "metadata", "sidecars"))
    decoder, times = Decoder(DecodeConfig(), cutting("vad"), {}), []
    for _ in range(2):
        before = time.perf_counter()
        list(decoder.read(row))
        times.append(time.perf_counter() - before)
    decoder.close()
    return times[0] - times[1]


def real(nodes: int, corpus: Path, output: Path) -> dict[str, Any]:
    """A run on so many nodes; its summary."""
    cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=4)
    cluster.wait_for_nodes()
    options = [
        "--model",
        "fake://device",
        "--ray-address",
        cluster.address,
        "--actors",
        str(nodes),
        "--part-seconds",
        "40",
        "--verify-segments",
        "0",
    ]
    command = [
        sys.executable,
        "-m",
        "audiomill",
        "transcribe",
        str(corpus),
        "--output",
        str(output),
        *options,
        "--no-report",
        "--quiet",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.getcwd()})
    cluster.shutdown()
    (name,) = [name for name in os.listdir(output / "ledger") if name.startswith("run-")]
    return dict(json.loads((output / "ledger" / name).read_text()))


def simulated(parts: list[Work], nodes: int) -> float:
    """Seconds from the moment at which models are given their first piece."""
    cluster = Cluster(nodes=nodes, decoders=3, startup_s=0.0, start_s=0.0, dispatch_s=DISPATCH_S)
    first = min(part.decode_s for part in parts) + DISPATCH_S
    chances = [Chance(straggler=0.05, seed=seed) for seed in range(5)]
    return median(simulate_spot(parts, cluster, chance)[0].wall_s for chance in chances) - first


def main() -> None:
    """Prints and saves measured and simulated times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    args = parser.parse_args()
    result = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_corpus(corpus, args.minutes * 60, None)
        opening = opening_s(sorted(corpus.iterdir())[0])
        parts: list[Work] = []
        for nodes in (1, 2, 3):
            output = Path(folder) / f"out{nodes}"
            summary = real(nodes, corpus, output)
            measured = summary["wall_s"] - summary["startup_s"]
            if not parts:
                for entry in ledger.entries(Place(str(output))):
                    decode = sum(entry["seconds"][stage] for stage in STAGES)
                    parts.append(Work(entry["duration_s"], 0.0, opening + decode, entry["seconds"]["infer"]))
            said = simulated(parts, nodes)
            result.append(
                {
                    "nodes": nodes,
                    "measured_s": round(measured, 1),
                    "simulated_s": round(said, 1),
                    "ratio": round(said / measured, 3),
                }
            )
            print(result[-1], flush=True)
    save(
        "simulation",
        f"python -m benchmarks.simulation --minutes {args.minutes:g}",
        {"parts": len(parts), "runs": result},
    )


if __name__ == "__main__":
    main()
