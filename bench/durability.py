"""How likely is it to lose data? Years of node failures, simulated over real layouts.

    python -m bench.durability [--cycles N] [--seed N]

Nodes fail for good independently, at `FAILURES_PER_YEAR` each; a lost node's shards are whole
again elsewhere after an exponential time with the mean given. The layout is what
`placement.layout` makes, and data is lost when a placement group has lost a set of shards that its
scheme cannot decode (`Scheme.decodable`, so local reconstruction codes are judged exactly).

Loss is far too rare to wait for, so the simulation makes it frequent and weights each history by
how much likelier it was made (importance sampling with failure biasing: Shahabuddin, "Importance
Sampling for the Simulation of Highly Reliable Markovian Systems", Management Science 40(3), 1994).
While a node is down, the next event is a failure with probability one half, whatever the rates say;
and with probability one half the node that fails is drawn from a group that has lost most already.
A cycle begins with the first failure of a healthy cluster and ends when all is repaired or data is
lost; such cycles begin at the rate at which healthy clusters have failures.

What is left out makes the figures pessimistic (the most endangered groups are rebuilt first in
reality) or optimistic (a rack that fails, a wrong command and a bug are not independent).
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from erasure.scheme import Scheme
from placement.cluster_map import Node
from placement.layout import compute

FAILURES_PER_YEAR = 0.05
HOURS_PER_YEAR = 8766.0
CYCLES = 20_000
SEED = 20261121
SCHEMES = ("4+2", "8+3", "8+4/2")
CLUSTERS = (10, 100, 1000)
REPAIR_HOURS = (0.25, 1.0, 6.0, 24.0)
ZONES = 10
FAILURE_BIAS = 0.5
AIMED = 0.5
GROUPS_PER_NODE = 25
GROUPS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Estimate:
    """Probability of losing any data within a year, and the standard error of the estimate."""

    per_year: float
    standard_error: float


class Cluster:
    """Nodes, and which placement groups hold a shard on which: (group, slot) by node."""

    def __init__(self, scheme: Scheme, nodes: int) -> None:
        self.scheme = scheme
        self.nodes = nodes
        groups = min(GROUPS_MAX, max(64, GROUPS_PER_NODE * nodes // scheme.width))
        zones = min(ZONES, nodes)
        layout = compute(
            [Node(f"n{number:04}", f"z{number % zones}", 1) for number in range(nodes)],
            pg_count=groups,
            width=scheme.width,
            zone_limit=scheme.tolerance,
        )
        self.slots: list[list[tuple[int, int]]] = [[] for _ in range(nodes)]
        self.groups = [[int(node[1:]) for node in row if node is not None] for row in layout]
        for group, members in enumerate(self.groups):
            for slot, node in enumerate(members):
                self.slots[node].append((group, slot))


class Cycle:
    """One history from the first failure to full redundancy, or to a loss."""

    def __init__(
        self,
        cluster: Cluster,
        repair_rate: float,
        chance: random.Random,
        *,
        bias: float,
        aimed: float,
    ) -> None:
        self._cluster = cluster
        self._bias = bias
        self._aimed = aimed
        self._failure_rate = FAILURES_PER_YEAR / HOURS_PER_YEAR
        self._repair_rate = repair_rate
        self._chance = chance
        self._down: list[int] = []
        self._lost: dict[int, set[int]] = {}

    def run(self) -> float:
        """The weight of this history if data was lost in it, else 0."""
        weight = 1.0
        if self._fail(self._chance.randrange(self._cluster.nodes)):
            return weight
        while self._down:
            fails = (self._cluster.nodes - len(self._down)) * self._failure_rate
            repairs = len(self._down) * self._repair_rate
            likely = fails / (fails + repairs)
            bias = max(self._bias, likely) if fails else 0.0
            if self._chance.random() < bias:
                node, ratio = self._draw()
                weight *= likely / bias * ratio
                if self._fail(node):
                    return weight
            else:
                weight *= (1.0 - likely) / (1.0 - bias)
                self._repair()
        return 0.0

    def _draw(self) -> tuple[int, float]:
        """The node that fails next, and how much likelier it should have been than it was made."""
        most = max(map(len, self._lost.values()), default=0)
        hit = [group for group, lost in self._lost.items() if len(lost) == most]
        aims = [[n for n in self._cluster.groups[g] if n not in self._down] for g in hit]
        aims = [members for members in aims if members]
        up = self._cluster.nodes - len(self._down)
        aimed = self._aimed if aims else 0.0
        if self._chance.random() < aimed:
            node = self._chance.choice(self._chance.choice(aims))
        else:
            node = self._chance.randrange(self._cluster.nodes)
            while node in self._down:
                node = self._chance.randrange(self._cluster.nodes)
        drawn = (1.0 - aimed) / up
        drawn += sum(aimed / len(aims) / len(members) for members in aims if node in members)
        return node, 1.0 / up / drawn

    def _fail(self, node: int) -> bool:
        """A node that was up fails; whether that loses data."""
        self._down.append(node)
        scheme, lost_data = self._cluster.scheme, False
        for group, slot in self._cluster.slots[node]:
            lost = self._lost.setdefault(group, set())
            lost.add(slot)
            if len(lost) > scheme.tolerance:
                left = [index for index in range(scheme.width) if index not in lost]
                lost_data = lost_data or not scheme.decodable(left)
        return lost_data

    def _repair(self) -> None:
        node = self._down.pop(self._chance.randrange(len(self._down)))
        for group, slot in self._cluster.slots[node]:
            lost = self._lost[group]
            lost.discard(slot)
            if not lost:
                del self._lost[group]


def estimate(
    cluster: Cluster,
    repair_hours: float,
    *,
    cycles: int,
    seed: int,
    bias: float = FAILURE_BIAS,
    aimed: float = AIMED,
) -> Estimate:
    """The probability that a cluster loses data within a year. With `bias` and `aimed` 0 nothing
    is made likelier than it is.

    Cycles begin at the rate at which a healthy cluster has its first failure; the time spent in
    cycles is neglected, which is right as long as repair takes hours and failures years.
    """
    chance = random.Random(seed)
    weights = [
        Cycle(cluster, 1.0 / repair_hours, chance, bias=bias, aimed=aimed).run()
        for _ in range(cycles)
    ]
    mean = sum(weights) / cycles
    variance = sum((weight - mean) ** 2 for weight in weights) / (cycles - 1)
    cycles_per_year = cluster.nodes * FAILURES_PER_YEAR
    rate = cycles_per_year * mean
    error = cycles_per_year * math.sqrt(variance / cycles)
    return Estimate(-math.expm1(-rate), error)


def rows(cycles: int, seed: int) -> list[list[str]]:
    """The table: a scheme and a number of nodes per row, a repair time per column."""
    table = []
    for text in SCHEMES:
        scheme = Scheme.parse(text)
        for nodes in CLUSTERS:
            row = [text, f"{nodes:,}"]
            if nodes < scheme.width:
                row += [f"needs {scheme.width} nodes"] + ["–"] * (len(REPAIR_HOURS) - 1)
            else:
                cluster = Cluster(scheme, nodes)
                for hours in REPAIR_HOURS:
                    found = estimate(cluster, hours, cycles=cycles, seed=seed)
                    row.append(shown(found))
            table.append(row)
    return table


def shown(found: Estimate) -> str:
    """An estimate with its relative error, as 1.2e-09 ± 4 %.

    >>> shown(Estimate(1.2e-9, 4.8e-11)), shown(Estimate(0.0, 0.0))
    ('1.2e-09 ± 4 %', 'none seen')
    """
    if not found.per_year:
        return "none seen"
    return f"{found.per_year:.1e} ± {100 * found.standard_error / found.per_year:.0f} %"


def markdown(table: Sequence[Sequence[str]]) -> str:
    """The table in Markdown, as docs/durability.md has it."""
    titles = ["scheme", "nodes", *(f"repaired in {hours:g} h" for hours in REPAIR_HOURS)]
    lines = [titles, ["---"] * len(titles), *table]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=CYCLES, help="histories per figure")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    print(markdown(rows(arguments.cycles, arguments.seed)))


if __name__ == "__main__":
    main()
