"""The collector and the other workers beside random S3 operations, crashes and failing nodes."""

from __future__ import annotations

import pytest

from s3gw import limits
from tests.stores.model import Scenario
from tests.stores.virtual_time import run_virtual

STEPS = 80


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 0)


def run(seed: int, *, crash_share: float, versioned: bool = False, trash: bool = False) -> Scenario:
    scenario = Scenario(seed, crash_share=crash_share, versioned=versioned, trash=trash)
    try:
        run_virtual(scenario.run(STEPS))
    except BaseException as error:
        error.add_note(f"seed {seed}: " + "; ".join(scenario.log[-25:]))
        raise
    return scenario


@pytest.mark.parametrize("seed", range(20))
def test_nothing_held_is_removed_and_nothing_else_stays(seed: int) -> None:
    assert run(seed, crash_share=0.0).crashes == 0


@pytest.mark.parametrize("first", range(100, 200, 10))
def test_a_crash_at_any_commit_loses_nothing_and_leaves_nothing_behind(first: int) -> None:
    crashes = [run(seed, crash_share=0.6).crashes for seed in range(first, first + 10)]
    assert sum(crashes) > 20


@pytest.mark.parametrize("seed", range(300, 310))
def test_noncurrent_versions_are_held_until_they_are_removed(seed: int) -> None:
    run(seed, crash_share=0.3, versioned=True)


@pytest.mark.parametrize("seed", range(400, 430))
def test_what_is_in_the_trash_is_held_until_it_leaves_it(seed: int) -> None:
    run(seed, crash_share=0.3, trash=True)
