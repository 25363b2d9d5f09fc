from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import erasure.stripes
from erasure.scheme import Scheme
from erasure.stripes import Geometry

schemes = st.sampled_from([Scheme.parse(text) for text in ("4+2", "8+3", "2+1", "1+2", "7+2")])
geometries = st.builds(Geometry, schemes, st.integers(1, 40), st.integers(0, 400))
# S3's largest object is 5 TiB; the arithmetic must not depend on smallness.
large = st.builds(Geometry, schemes, st.just(1 << 20), st.integers(1, 5 << 40))


def test_worked_examples_hold() -> None:
    results = doctest.testmod(erasure.stripes)
    assert results.attempted > 0
    assert results.failed == 0


@given(geometries)
def test_stripes_and_blocks_add_up_to_the_blob_and_the_shard(blob: Geometry) -> None:
    lengths = [blob.stripe_length(i) for i in range(blob.stripe_count)]
    assert sum(lengths) == blob.size
    assert all(length == blob.stripe_bytes for length in lengths[:-1])
    assert all(0 < length <= blob.stripe_bytes for length in lengths)
    blocks = [blob.block_length(i) for i in range(blob.stripe_count)]
    assert sum(blocks) == blob.shard_payload_bytes
    assert all(block == blob.block_bytes for block in blocks[:-1])
    for i, length in enumerate(lengths):
        part = blob.part(i)
        assert (part.stripe, part.stripe_length, part.start, part.stop) == (i, length, 0, length)


@given(large, st.data())
def test_the_parts_of_a_range_at_any_scale_cover_it_exactly(
    blob: Geometry, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, blob.size - 1))
    last = data.draw(st.integers(first, min(blob.size - 1, first + (5 << 20))))
    position = first
    for part in blob.parts(first, last):
        assert part.stripe * blob.stripe_bytes + part.start == position
        assert part.stripe_length == blob.stripe_length(part.stripe)
        position += part.stop - part.start
    assert position == last + 1


@settings(max_examples=200)
@given(geometries.filter(lambda blob: blob.size > 0), st.data())
def test_a_range_read_from_its_fragments_equals_the_slice(
    blob: Geometry, data: st.DataObject
) -> None:
    content = bytes(i % 251 for i in range(blob.size))
    first = data.draw(st.integers(0, blob.size - 1))
    last = data.draw(st.integers(first, blob.size - 1))
    read = b""
    for part in blob.parts(first, last):
        base = part.stripe * blob.stripe_bytes
        stripe = content[base : base + part.stripe_length]
        size = blob.block_length(part.stripe)
        joined = b"".join(stripe[d * size : (d + 1) * size] for d in part.fragments)
        offset = part.start - part.fragments.start * size
        piece = joined[offset : offset + part.stop - part.start]
        read += piece
        # Not one fragment more than needed.
        assert part.fragments.start * size <= part.start
        assert (part.fragments.start + 1) * size > part.start
        assert (part.fragments.stop - 1) * size < part.stop
    assert read == content[first : last + 1]


def test_a_small_range_reads_one_fragment() -> None:
    blob = Geometry(Scheme.parse("4+2"), 1 << 20, 5 << 40)
    (part,) = blob.parts((4 << 40) + 300_000, (4 << 40) + 304_095)
    assert list(part.fragments) == [1]
    assert part.stripe == 4 << 20


def test_what_is_outside_the_blob_is_refused() -> None:
    blob = Geometry(Scheme.parse("4+2"), 100, 210)
    for first, last in ((-1, 3), (5, 4), (0, 210), (210, 210)):
        with pytest.raises(ValueError, match="not in a blob"):
            blob.parts(first, last)
    for stripe in (-1, 3):
        with pytest.raises(IndexError):
            blob.stripe_length(stripe)
    with pytest.raises(IndexError):
        Geometry(Scheme.parse("4+2"), 100, 0).part(0)
    with pytest.raises(ValueError, match="out of range"):
        Geometry(Scheme.parse("4+2"), 0, 1)
