"""A job on many machines as a discrete-event simulation: parts, decode cores, model actors, the object store and the driver
that hands out the work.

What is modelled is what `audiomill.runs.on_ray` does: the driver hands out parts one after the other; a decode core of any
node fetches and decodes one; at most a few pieces wait for each actor, so decoding stops when models are behind; an
actor works one piece at a time. Machines that go away and parts that are slow by chance are in `benchmarks.spot`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

FEW_PARTS, SPARE_SHARE = 4.0, 0.75
_PIECES_PER_ACTOR = 3
"""As in `audiomill.runs.on_ray`."""


class Work(NamedTuple):
    """One part. `decode_s`: of one core; `model_s`: of one actor with nothing beside it."""

    audio_s: float
    fetch_bytes: float
    decode_s: float
    model_s: float


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Machines of one kind.

    Args:
        nodes: with `actors` model actors and `decoders` decode cores each.
        shared_cores: cores of a node that models and decoders share; None: models have a device of their own.
        node_bytes_s: of a node's network, bytes a second; store_bytes_s: of the object store for all.
        start_s: until a node's actors are ready; startup_s: before that, once.
        dispatch_s: of the driver for a part.
    """

    nodes: int = 1
    actors: int = 1
    decoders: int = 8
    shared_cores: int | None = None
    node_bytes_s: float = 1.25e9
    store_bytes_s: float = 1.25e11
    startup_s: float = 10.0
    start_s: float = 30.0
    dispatch_s: float = 0.03


@dataclass(kw_only=True)
class Outcome:
    """What came of it. Shares are of the time between the first part and the last."""

    wall_s: float = 0.0
    audio_s: float = 0.0
    device_busy: float = 0.0
    decode_busy: float = 0.0
    network_busy: float = 0.0
    driver_busy: float = 0.0
    parts_per_actor: float = 0.0

    @property
    def x_real_time(self) -> float:
        return self.audio_s / self.wall_s if self.wall_s else 0.0

    @property
    def bottleneck(self) -> str:
        """What was busiest; or that there is too little to share."""
        if self.parts_per_actor < FEW_PARTS and self.device_busy < SPARE_SHARE:
            return "few parts"
        shares = {
            "models": self.device_busy,
            "decode cores": self.decode_busy,
            "network": self.network_busy,
            "driver": self.driver_busy,
        }
        return max(shares, key=lambda name: shares[name])


@dataclass
class _Node:
    number: int
    life: int = 0
    free_actors: int = 0
    free_decoders: int = 0
    waiting: deque[int] = field(default_factory=deque)
    working: dict[int, tuple[str, float]] = field(default_factory=dict)


class Simulation:
    """One job. `life` of a node numbers its lives: events of an earlier one are void."""

    def __init__(self, parts: Sequence[Work], cluster: Cluster) -> None:
        self._parts, self._cluster = parts, cluster
        self._todo = deque(range(len(parts)))
        self._events: list[tuple[float, int, str, int, int, int]] = []
        self._count = self._num_done = self._num_fetching = 0
        self._now = self._driver_free = cluster.startup_s
        self._busy = {"model": 0.0, "decode": 0.0}
        shared = len(parts) / (cluster.nodes * cluster.actors)
        self.outcome = Outcome(audio_s=sum(part.audio_s for part in parts), parts_per_actor=shared)
        self._nodes = [_Node(number) for number in range(cluster.nodes)]
        for node in self._nodes:
            self._at(cluster.startup_s + cluster.start_s, "start", node)

    def run(self) -> Outcome:
        """Until every part is done."""
        while self._num_done < len(self._parts):
            self._now, _, what, number, life, part = heapq.heappop(self._events)
            node = self._nodes[number]
            if node.life == life:
                getattr(self, f"_{what}")(node, part)
            self._hand_out()
        outcome, cluster = self.outcome, self._cluster
        outcome.wall_s = self._now
        working = max(self._now - cluster.startup_s - cluster.start_s, 1e-9)
        outcome.device_busy = self._busy["model"] / (working * cluster.nodes * cluster.actors)
        outcome.decode_busy = self._busy["decode"] / (working * cluster.nodes * cluster.decoders)
        fetched = sum(part.fetch_bytes for part in self._parts)
        most = min(cluster.store_bytes_s, cluster.nodes * cluster.node_bytes_s)
        outcome.network_busy = fetched / (most * working)
        outcome.driver_busy = len(self._parts) * cluster.dispatch_s / working
        return outcome

    def _at(self, time: float, what: str, node: _Node, part: int = -1) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, what, node.number, node.life, part))

    def _start(self, node: _Node, _: int) -> None:
        node.free_actors, node.free_decoders = self._cluster.actors, self._cluster.decoders

    def _hand_out(self) -> None:
        """Gives parts to free decode cores of the emptiest nodes, as the driver finds the time."""
        limit = _PIECES_PER_ACTOR * self._cluster.actors
        while self._todo:
            free = [n for n in self._nodes if n.free_decoders and len(n.waiting) + self._decoding(n) < limit]
            if not free:
                return
            node = min(free, key=lambda n: (len(n.waiting) + self._decoding(n), n.number))
            part = self._todo.popleft()
            node.free_decoders -= 1
            self._driver_free = max(self._driver_free, self._now) + self._cluster.dispatch_s
            self._num_fetching += 1
            rate = min(self._cluster.node_bytes_s, self._cluster.store_bytes_s / self._num_fetching)
            fetch = self._parts[part].fetch_bytes / rate
            decode = self._parts[part].decode_s * self._luck()
            node.working[part] = ("decode", self._driver_free)
            self._busy["decode"] += decode
            self._at(self._driver_free + fetch + decode, "decoded", node, part)

    def _decoding(self, node: _Node) -> int:
        return self._cluster.decoders - node.free_decoders

    def _decoded(self, node: _Node, part: int) -> None:
        node.free_decoders += 1
        self._num_fetching -= 1
        del node.working[part]
        node.waiting.append(part)
        self._infer(node)

    def _infer(self, node: _Node) -> None:
        while node.free_actors and node.waiting:
            part = node.waiting.popleft()
            node.free_actors -= 1
            took = self._parts[part].model_s * self._luck()
            if self._cluster.shared_cores is not None:
                took *= 1 + min(1.0, self._decoding(node) / self._cluster.shared_cores) * self._decode_share(part)
            node.working[part] = ("model", self._now)
            self._busy["model"] += took
            self._at(self._now + took, "inferred", node, part)

    def _decode_share(self, part: int) -> float:
        """How much of the model's time somebody decodes beside it: as much as one part needs."""
        work = self._parts[part]
        return min(1.0, work.decode_s / max(work.model_s, 1e-9))

    def _inferred(self, node: _Node, part: int) -> None:
        node.free_actors += 1
        del node.working[part]
        self._num_done += 1
        self._infer(node)

    def _luck(self) -> float:
        """Times as long as a part takes."""
        return 1.0


def simulate(parts: Sequence[Work], cluster: Cluster) -> Outcome:
    """Runs a job of `parts` on a cluster that exists on paper."""
    return Simulation(parts, cluster).run() if parts else Outcome()
