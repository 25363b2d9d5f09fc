"""Settings that are changed while the store runs, and the throttle that obeys them."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.cluster.tunables import (
    BOUNDS,
    REBUILT_SHARD_BYTES_MIN,
    BadTunable,
    LiveTunables,
    Throttle,
    rebuild_throttle,
)
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata.records import Tunables

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_a_change_is_seen_by_every_process() -> None:
    store = MemoryStore(Time())
    one, other = LiveTunables(MemoryKV(store)), LiveTunables(MemoryKV(store))
    await one.change({"rebuild_groups_at_once": 7})
    await other.change({"rebuild_after_seconds": 2.5})
    await one.refresh()
    assert one.current == other.current
    assert (one.current.rebuild_groups_at_once, one.current.rebuild_after_seconds) == (7, 2.5)


@pytest.mark.parametrize(
    "values",
    [
        {"rebuild_groups_at_once": 2.5},
        {"rebuild_groups_at_once": True},
        {"rebuild_groups_at_once": 0},
        {"rebuild_after_seconds": "600"},
        {"rebuild_after_seconds": float("nan")},
        {"scrub_bytes_per_second": -1},
        {"unknown": 1},
        {"__class__": 1},
        {"rebuild_after_seconds": 600, "hold_down_seconds": -1},
    ],
)
async def test_what_is_out_of_bounds_changes_nothing(values: dict[str, Any]) -> None:
    tunables = LiveTunables(MemoryKV(MemoryStore(Time())))
    with pytest.raises(BadTunable):
        await tunables.change(values)
    await tunables.refresh()
    assert tunables.current == Tunables()


def test_every_setting_has_bounds_and_its_default_is_within() -> None:
    assert set(BOUNDS) == set(Tunables.__struct_fields__)
    for name, (least, most) in BOUNDS.items():
        assert least <= getattr(Tunables(), name) <= most


def test_the_defaults_are_in_the_documents() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", OPERATIONS.read_text(), re.MULTILINE))
    for name in BOUNDS:
        assert float(rows[name]) == getattr(Tunables(), name)


@given(pieces=st.lists(st.integers(1, 5000), min_size=1, max_size=50), rate=st.integers(1, 10_000))
async def test_no_more_than_the_rate_after_a_burst(pieces: list[int], rate: int) -> None:
    time = Time()
    throttle = Throttle(lambda: rate, clock=time, sleep=time.sleep)
    for piece in pieces:
        await throttle.take(piece)
    before_last = sum(pieces[:-1])
    assert before_last <= rate * (time.now + 1.0) + 1e-6
    assert time.now <= sum(pieces) / rate


async def test_a_raised_rate_takes_effect_while_somebody_waits() -> None:
    time, rate = Time(), 1.0

    async def sleep(seconds: float) -> None:
        nonlocal rate
        time.now += seconds
        rate = 0.0

    throttle = Throttle(lambda: rate, clock=time, sleep=sleep)
    await throttle.take(1000)
    await throttle.take(1)
    assert time.now <= 1.0


async def test_a_small_shard_is_charged_what_it_costs_a_rebuild() -> None:
    time = Time()
    tunables = LiveTunables(MemoryKV(MemoryStore(time)))
    assert tunables.current.rebuild_bytes_per_second == 64 * 1024 * 1024
    throttle = rebuild_throttle(tunables, clock=time, sleep=time.sleep)
    for _ in range(5001):
        await throttle.take(100)
    assert time.now == pytest.approx(5000 * REBUILT_SHARD_BYTES_MIN / 2**26 - 1, abs=0.01)
    await tunables.change({"rebuild_bytes_per_second": 10 * REBUILT_SHARD_BYTES_MIN})
    began = time.now
    await throttle.take(1)
    for _ in range(10):
        await throttle.take(10 * REBUILT_SHARD_BYTES_MIN)  # and a large one its bytes
    assert time.now - began == pytest.approx(9, abs=1.1)


async def test_a_shard_that_is_moved_in_small_pieces_is_charged_once() -> None:
    time = Time()
    throttle = Throttle(lambda: 1000, least=2000, clock=time, sleep=time.sleep)
    for offset in range(0, 10_000, 100):
        await throttle.take(100, before=offset)
    await throttle.take(100)
    assert time.now == pytest.approx(9, abs=0.01)
    await throttle.take(1)
    assert time.now == pytest.approx(11, abs=0.01)
