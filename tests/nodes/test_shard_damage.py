"""Damaged, foreign and hostile shards: never whole when checked, never stored, never a 500."""

from __future__ import annotations

import itertools
import os

import aiohttp
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yarl import URL

from nodes import wire
from nodes.auth import Signer
from nodes.check import StreamCheck, check_bytes
from nodes.format import ShardCorrupt, build_footer, build_header, parse_footer, parse_header
from nodes.memory import MemoryDrive
from nodes.protocol import DriveRefused, ShardName
from tests.nodes.drives import SECRET, make_shard, remote, serving

NAME = ShardName("p", 1, bytes(range(16)), 2)
sizes = st.integers(0, 700)
blocks = st.sampled_from([1, 7, 100, 250, 100_000])


def stream_accepts(name: ShardName, data: bytes, cuts: list[int]) -> bool:
    check = StreamCheck(name)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            check.feed(data[start:end])
        check.finish()
    except ShardCorrupt:
        return False
    return True


def shard(size: int, block_bytes: int, name: ShardName = NAME, seed: int = 1) -> bytes:
    payload = bytes((seed * 31 + n * 7) % 256 for n in range(size))
    return b"".join(make_shard(name, payload, block_bytes))


@given(sizes, blocks, st.lists(st.integers(0, 3000), max_size=8))
def test_whole_shards_are_accepted_in_pieces_of_any_size(
    size: int, block_bytes: int, cuts: list[int]
) -> None:
    data = shard(size, block_bytes)
    assert check_bytes(NAME, data).whole
    assert stream_accepts(NAME, data, cuts)


@example(0, 1, 86, 1, [])
@given(sizes, blocks, st.integers(0, 100_000), st.integers(1, 255), st.lists(st.integers(0, 3000)))
def test_a_changed_byte_is_always_noticed(
    size: int, block_bytes: int, at: int, flip: int, cuts: list[int]
) -> None:
    data = bytearray(shard(size, block_bytes))
    data[at % len(data)] ^= flip
    assert not check_bytes(NAME, bytes(data)).whole
    assert not stream_accepts(NAME, bytes(data), cuts)


@given(sizes, blocks, st.integers(0, 100_000), st.lists(st.integers(0, 3000), max_size=5))
def test_a_cut_shard_is_always_noticed(
    size: int, block_bytes: int, keep: int, cuts: list[int]
) -> None:
    data = shard(size, block_bytes)
    data = data[: keep % len(data)]
    assert not check_bytes(NAME, data).whole
    assert not stream_accepts(NAME, data, cuts)


@given(sizes, blocks, st.binary(min_size=1, max_size=300))
def test_an_extended_shard_is_always_noticed(size: int, block_bytes: int, more: bytes) -> None:
    data = shard(size, block_bytes) + more
    assert not check_bytes(NAME, data).whole
    assert not stream_accepts(NAME, data, [])


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
@example(b"", [])
def test_arbitrary_bytes_are_never_a_shard(data: bytes, cuts: list[int]) -> None:
    assert not check_bytes(NAME, data).whole
    assert not stream_accepts(NAME, data, cuts)
    for parse in (parse_header, lambda d: parse_footer(NAME, d)):
        with pytest.raises(ShardCorrupt):
            parse(data)


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 2**40))
def test_hostile_footers_are_never_accepted(body: bytes, footer: bytes, payload: int) -> None:
    claimed = build_footer(NAME, footer, payload)
    data = build_header(NAME, 50) + body + claimed
    whole = payload == 0 and not body
    assert check_bytes(NAME, data).whole == whole
    assert stream_accepts(NAME, data, []) == whole


OTHERS = [
    ShardName("p", 1, bytes(range(1, 17)), 2),
    ShardName("p", 1, bytes(range(16)), 3),
]


@pytest.mark.parametrize("other", OTHERS)
def test_another_shard_in_its_place_is_noticed(other: ShardName) -> None:
    data = shard(500, 100, other)
    assert check_bytes(other, data).whole
    assert not check_bytes(NAME, data).whole
    assert not stream_accepts(NAME, data, [])
    disguised = build_header(NAME, 100) + data[64:]
    assert not check_bytes(NAME, disguised).whole
    assert not stream_accepts(NAME, disguised, [])


def test_every_byte_of_a_shard_is_covered_by_a_checksum() -> None:
    data = shard(30, 10)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        assert not check_bytes(NAME, changed).whole, at
        assert not stream_accepts(NAME, changed, [at]), at


def test_swapped_blocks_are_noticed_and_named() -> None:
    buffers = make_shard(NAME, os.urandom(500), 100)
    buffers[1:3], buffers[5:7] = buffers[5:7], buffers[1:3]
    verdict = check_bytes(NAME, b"".join(buffers))
    assert verdict.damaged_blocks == [0, 2]
    assert verdict.reason == ""
    assert not stream_accepts(NAME, b"".join(buffers), [])


async def send(url: str, method: str, target: str, body: bytes) -> tuple[int, bytes]:
    signer = Signer(SECRET)
    headers = {"Authorization": signer.sign(method, target, len(body))}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(url + target, encoded=True), data=body, headers=headers) as r,
    ):
        return r.status, await r.read()


@pytest.mark.parametrize("size", [300, 400_000])
async def test_a_node_stores_no_damaged_shard(size: int) -> None:
    whole = b"".join(make_shard(NAME, os.urandom(size), 100_000))
    drive = MemoryDrive()
    damaged = [
        b"",
        whole[:-1],
        whole[: size // 2],
        whole + b"x",
        whole[: size // 2] + b"\x00" + whole[size // 2 + 1 :],
        b"x" * len(whole),
        b"".join(make_shard(OTHERS[0], b"x" * size)),
    ]
    target = wire.shard_target("d1", NAME)
    async with serving({"d1": drive}) as url:
        for data in damaged:
            status, _ = await send(url, "PUT", target, data)
            assert status == 400
            assert drive.shards == {}
        assert (await send(url, "PUT", target, whole))[0] == 200
    assert drive.shards == {NAME: whole}


async def test_a_writer_learns_that_its_shard_is_damaged() -> None:
    drive = MemoryDrive()
    async with remote(drive) as client:
        writer = client.writer(NAME)
        with pytest.raises(DriveRefused):
            for _ in range(200):
                await writer.append([b"y" * 100_000])
            await writer.commit()
        await writer.abort()
    assert drive.shards == {}


TEXT = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=60
)
TARGETS = st.one_of(
    TEXT.map(lambda t: "/" + t),
    TEXT.map(lambda t: "/v1/d1/" + t),
    TEXT.map(lambda t: "/v1/d1/shards/" + t),
    TEXT.map(lambda t: wire.shard_target("d1", NAME) + t),
    TEXT.map(lambda t: wire.shard_target("d1", NAME) + "?" + t),
    st.sampled_from(
        [
            "/v1/d1/shards/../../etc/passwd",
            "/v1/d1/shards/p/99999",
            "/v1/d1/shards/p/1/" + "0" * 32 + ".255",
            "/v1/d1/shards/p/1/" + "0" * 32 + ".1?offset=-1&length=2",
            "/v1/d1/shards/p/1/" + "0" * 32 + ".1?offset=0&length=9999999999999999999",
            "/v1/d1/shards/p/1/" + "0" * 32 + ".1?offset=9999999999999999999&length=1",
            "/v1/d1/shards/p/1/" + "0" * 32 + ".1?pg_revision=9999999999999999999",
            "/v1/d1/pg/p/1?revision=9999999999999999999",
            "/v1/d1/pg/p/1?revision=9223372036854775808",
            "/v1/d1/shards/%2e%2e/1",
            "/v1/d1/shards/p/01",
            "/v1/d1/shards/p/1/" + "0" * 32 + ".1%0a",
        ]
    ),
)


async def test_no_request_is_a_server_error() -> None:
    drive = MemoryDrive()
    async with serving({"d1": drive}) as url:
        statuses = set()

        @settings(max_examples=1, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.tuples(METHODS, TARGETS, st.binary(max_size=50)), min_size=150))
        def draw(requests: list[tuple[str, str, bytes]]) -> None:
            drawn.extend(requests)

        drawn: list[tuple[str, str, bytes]] = []
        draw()
        for method, target, body in drawn:
            status, _ = await send(url, method, target, body)
            statuses.add(status)
            assert status in (200, 400, 401, 404, 409), (method, target)
    assert drive.shards == {}
    assert 400 in statuses


METHODS = st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"])
