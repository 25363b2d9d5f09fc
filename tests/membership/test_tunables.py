"""Settings that are changed while the store runs, and the throttle that obeys them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.cluster.tunables import BOUNDS, BadTunable, LiveTunables, Throttle
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata.records import Tunables


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
