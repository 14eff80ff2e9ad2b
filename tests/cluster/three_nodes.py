"""A run on a Ray cluster of three nodes on this machine, one of which is killed under way."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from ray.cluster_utils import Cluster

from tests.support.jobs_by_hand import run


def kill_when_busy(cluster: Any, node: Any, output: Path) -> None:
    """Kills the node once some parts are done."""
    while len(list(output.glob("ledger/part-*.json"))) < 2:
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    print("killed a node", flush=True)


def main(inputs: str, output: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    cluster.wait_for_nodes()
    killer = threading.Thread(target=kill_when_busy, args=(cluster, nodes[0], Path(output)))
    killer.start()
    run(
        inputs,
        output,
        engine="ray",
        ray_address=cluster.address,
        model="fake://slow",
        actors=2,
        part_seconds=15,
        no_progress_timeout=60,
    )
    killer.join()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
