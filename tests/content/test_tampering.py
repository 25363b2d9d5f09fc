"""Sealed bytes that somebody changed, with the shards' own checksums made to fit: content is never
given out that was not stored, in this place."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.objects.content.chunks import CHUNK_BYTES, SEALED_CHUNK_BYTES, sealed_size
from s3gw.objects.content.framing import ContentDamaged, Framing, decoded
from s3gw.objects.content.sealing import ContentCipher, NotAuthentic, unwrap, wrap
from tests.content.framed import encode, read_range

FRAMING = Framing(b"i" * 16, b"k" * 32)
OTHER = Framing(b"j" * 16, b"k" * 32)
CONTENT = random.Random(1).randbytes(3 * CHUNK_BYTES + 100)
STORED = encode(FRAMING, CONTENT)[0]


def chunks_of(stored: bytes) -> list[bytes]:
    return [
        stored[at : at + SEALED_CHUNK_BYTES] for at in range(0, len(stored), SEALED_CHUNK_BYTES)
    ]


def swapped(chunks: list[bytes]) -> bytes:
    return b"".join([chunks[1], chunks[0], *chunks[2:]])


def replayed(chunks: list[bytes]) -> bytes:
    return b"".join([chunks[0], chunks[0], *chunks[2:]])


def of_another(chunks: list[bytes]) -> bytes:
    other = chunks_of(encode(OTHER, CONTENT)[0])
    return b"".join([chunks[0], other[1], *chunks[2:]])


ATTACKS = [swapped, replayed, of_another]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_chunks_in_other_places_do_not_open(attack) -> None:
    stored = attack(chunks_of(STORED))
    with pytest.raises(ContentDamaged):
        await read_range(FRAMING, len(CONTENT), stored, 0, len(CONTENT))
    with pytest.raises(ContentDamaged):
        await read_range(FRAMING, len(CONTENT), stored, CHUNK_BYTES, CHUNK_BYTES + 1)
    with pytest.raises(ContentDamaged):
        list(decoded(FRAMING, len(CONTENT), len(stored), [stored]))


@pytest.mark.parametrize("left", [1, 2, 3])
async def test_a_content_that_is_cut_after_a_chunk_does_not_open_as_a_shorter_one(
    left: int,
) -> None:
    stored = b"".join(chunks_of(STORED)[:left])
    size = left * CHUNK_BYTES
    assert len(stored) == sealed_size(size)
    with pytest.raises(ContentDamaged):
        await read_range(FRAMING, size, stored, size - 1, size)


async def test_a_content_that_goes_on_behind_its_end_does_not_open() -> None:
    one = encode(FRAMING, CONTENT[:CHUNK_BYTES])[0]
    longer = one + encode(FRAMING, CONTENT[:CHUNK_BYTES] + b"x")[0][SEALED_CHUNK_BYTES:]
    with pytest.raises(ContentDamaged):
        await read_range(FRAMING, CHUNK_BYTES + 1, longer, 0, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(STORED) - 1), st.integers(0, 7))
async def test_one_flipped_bit_anywhere_is_found(position: int, bit: int) -> None:
    stored = bytearray(STORED)
    stored[position] ^= 1 << bit
    with pytest.raises(ContentDamaged):
        await read_range(FRAMING, len(CONTENT), bytes(stored), 0, len(CONTENT))


async def test_nothing_of_a_damaged_chunk_is_given_out() -> None:
    stored = bytearray(STORED)
    stored[2 * SEALED_CHUNK_BYTES + 5] ^= 1
    found = await read_range(FRAMING, len(CONTENT), bytes(stored), 0, 2 * CHUNK_BYTES)
    assert found == CONTENT[: 2 * CHUNK_BYTES]
    with pytest.raises(ContentDamaged):
        await read_range(FRAMING, len(CONTENT), bytes(stored), 0, 2 * CHUNK_BYTES + 1)


def test_no_nonce_repeats_under_a_key() -> None:
    """Equal chunks of one content, and of two with one data key, are sealed differently."""
    first, second = (ContentCipher(b"k" * 32, name) for name in (b"i" * 16, b"j" * 16))
    sealed = [first.seal(n, b"same", last=False) for n in range(4)]
    sealed += [second.seal(n, b"same", last=False) for n in range(4)]
    assert len(set(sealed)) == 8


def test_a_wrapped_key_opens_in_its_context_only() -> None:
    wrapped = wrap(b"m" * 32, b"d" * 32, b"context")
    assert unwrap(b"m" * 32, wrapped, b"context") == b"d" * 32
    for key, context in ((b"m" * 32, b"other"), (b"n" * 32, b"context")):
        with pytest.raises(NotAuthentic):
            unwrap(key, wrapped, context)
    with pytest.raises(NotAuthentic):
        unwrap(b"m" * 32, wrapped[:-1], b"context")
    with pytest.raises(NotAuthentic):
        unwrap(b"m" * 32, b"", b"context")
