"""R28: whole clusters in one thread, on a simulated network, disk and clock, from a seed.

Runs are made in processes of their own, because clocks, randomness and threads are taken away from
the whole process (tests.simulation.determinism). With SOAK=1: 3,000 seeds from SOAK_SEED.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.attacks.target import SOAK

SEED = int(os.environ.get("SOAK_SEED", "20260507"))
SEEDS = 3000 if SOAK else 16
SEEDS_PER_PROCESS = 20 if SOAK else 8
COMMAND = "python -m tests.simulation"
# Of which fault within how many seeds the simulation must find signs.
PLANTS = {
    "greedy garbage": 10,
    "lost updates": 10,
    **({"early acknowledgement": 100} if SOAK else {}),
}


def simulate(seed: int, count: int = 1, *options: str) -> list[dict[str, Any]]:
    """What came of each run. A process that fails otherwise than by a finding raises."""
    command = [sys.executable, "-m", "tests.simulation", str(seed), str(count), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("first", range(SEED, SEED + SEEDS, SEEDS_PER_PROCESS))
def test_nothing_is_lost_or_wrong_and_all_heals(first: int) -> None:
    results = simulate(first, SEEDS_PER_PROCESS)
    assert len(results) == SEEDS_PER_PROCESS
    for result in results:
        found = "\n".join(text[:2000] for text in result["wrong"][:5])
        assert not found, f"reproduce with: {COMMAND} {result['seed']} --trace FILE\n{found}"
        assert result["answered"] > 0


def test_a_seed_says_all_that_happens() -> None:
    """Whatever the process has done before, and whatever addresses it has."""
    one, other = simulate(SEED, 2), simulate(SEED + 1)
    assert one[1]["digest"] == other[0]["digest"]
    assert one[1]["events"] == other[0]["events"] > 500
    assert one[0]["digest"] != one[1]["digest"]


@pytest.mark.parametrize("plant", PLANTS)
def test_a_known_fault_is_found(plant: str) -> None:
    results = simulate(SEED, PLANTS[plant], "--plant", plant)
    assert results[-1]["wrong"], f"{len(results)} seeds did not find it"
