"""The simulation of a job with machines that go away and parts that are slow by chance: a node takes what is on it along, and
its parts are done again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audiomill.forecast.simulate import Cluster, Outcome, Simulation, Work


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What may happen.

    Attributes:
        straggler: spread (standard deviation of the logarithm) of the times of a part.
        mean_life_s: of a node on the spot market; None: it stays.
        replace_s: until a node that went away is replaced.
        seed: of the dice.
    """

    straggler: float = 0.1
    mean_life_s: float | None = None
    replace_s: float = 180.0
    seed: int = 0


@dataclass(kw_only=True)
class Loss:
    """Device seconds of work that nodes took along."""

    num_preemptions: int = 0
    lost_s: float = 0.0


class SpotSimulation(Simulation):
    """A job on such machines."""

    def __init__(self, parts: Sequence[Work], cluster: Cluster, chance: Chance) -> None:
        self._chance, self._dice, self.loss = chance, random.Random(chance.seed), Loss()
        super().__init__(parts, cluster)

    def _start(self, node: Any, part: int) -> None:
        super()._start(node, part)
        if self._chance.mean_life_s is not None:
            self._at(self._now + self._dice.expovariate(1 / self._chance.mean_life_s), "leave", node)

    def _leave(self, node: Any, _: int) -> None:
        """The node goes away with all that is on it."""
        self.loss.num_preemptions += 1
        for part, (stage, since) in node.working.items():
            self._todo.appendleft(part)
            if stage == "model":
                self.loss.lost_s += self._now - since
            else:
                self._num_fetching -= 1
        for part in node.waiting:
            self._todo.appendleft(part)
        node.working.clear()
        node.waiting.clear()
        node.free_actors = node.free_decoders = 0
        node.life += 1
        self._at(self._now + self._chance.replace_s + self._cluster.start_s, "start", node)

    def _luck(self) -> float:
        return self._dice.lognormvariate(0.0, self._chance.straggler) if self._chance.straggler else 1.0


def simulate_spot(parts: Sequence[Work], cluster: Cluster, chance: Chance) -> tuple[Outcome, Loss]:
    """What came of it, and what was lost. The same seed gives the same outcome."""
    simulation = SpotSimulation(parts, cluster, chance)
    return simulation.run(), simulation.loss
