"""Commits, guards and reads of an engine against a dictionary, for random sequences."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.kv.interface import KV, At, Conflict, Delete, Empty, Guard, Item, NoneNewer, Put, Write
from s3gw.kv.memory import MemoryKV
from s3gw.kv.sqlite import SqliteKV

State = dict[bytes, Item]

KEYS = [b"a", b"a\x00", b"a\xff", b"b", b"b/1", b"b/2", b"c"]
key = st.sampled_from(KEYS)
age = st.integers(0, 3)
"""Which of the last revisions a guard names; 0 is zero itself."""
GUARD = st.one_of(
    st.tuples(st.just("at"), key, st.just(b""), st.one_of(age, st.just(9))),
    st.tuples(st.just("empty"), key, key, age),
    st.tuples(st.just("none newer"), key, key, age),
)
WRITE = st.one_of(st.builds(Put, key, st.binary(max_size=5)), st.builds(Delete, key))
COMMIT = st.tuples(
    st.lists(GUARD, max_size=3),
    st.lists(WRITE, min_size=1, max_size=4, unique_by=lambda write: write.key),
)


async def _memory(directory: Path) -> KV:
    return MemoryKV()


async def _sqlite(directory: Path) -> KV:
    return await SqliteKV.open(directory, None)


def _holds(guard: Guard, state: State) -> bool:
    match guard:
        case At(name, revision):
            return (state[name].revision if name in state else 0) == revision
        case Empty(start, end):
            return not any(start <= name < end for name in state)
        case NoneNewer(start, end, revision):
            return all(i.revision <= revision for n, i in state.items() if start <= n < end)


def _guard(drawn: tuple[str, bytes, bytes, int], state: State, revisions: list[int]) -> Guard:
    kind, start, end, aged = drawn
    revision = 0 if aged == 0 else revisions[-min(aged, len(revisions))]
    if kind == "at":
        present = state[start].revision if start in state else 0
        return At(start, present if aged == 9 else revision)
    return Empty(start, end) if kind == "empty" else NoneNewer(start, end, revision)


@pytest.mark.parametrize("open_engine", [_memory, _sqlite])
@settings(max_examples=60, deadline=None)
@given(commits=st.lists(COMMIT, max_size=12))
def test_an_engine_agrees_with_a_dictionary(
    open_engine: Callable[[Path], Awaitable[KV]], commits: list[Any]
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        asyncio.run(_play(open_engine, Path(directory), commits))


async def _play(
    open_engine: Callable[[Path], Awaitable[KV]], directory: Path, commits: list[Any]
) -> None:
    engine = await open_engine(directory)
    state: State = {}
    first = (await engine.get_many([])).revision
    past: dict[int, State] = {first: {}}
    for drawn, writes in commits:
        guards = [_guard(one, state, list(past)) for one in drawn]
        failed = next((guard for guard in guards if not _holds(guard, state)), None)
        if failed is not None:
            with pytest.raises(Conflict) as conflict:
                await engine.commit(guards, writes)
            assert conflict.value.guard == failed
            continue
        revision = await engine.commit(guards, writes)
        assert revision > max(past)
        state = _written(state, writes, revision)
        past[revision] = state
    for revision, expected in past.items():
        page = await engine.scan(b"", b"\xff", limit=100, revision=revision)
        assert page.items == [expected[name] for name in sorted(expected)]
    assert (await engine.get_many(KEYS)).items == [state.get(name) for name in KEYS]
    await engine.close()


def _written(state: State, writes: list[Write], revision: int) -> State:
    state = dict(state)
    for write in writes:
        state.pop(write.key, None)
        if isinstance(write, Put):
            state[write.key] = Item(write.key, write.value, revision)
    return state
