"""The arithmetic of sealed content against a plain model of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.objects.content.chunks import (
    CHUNK_BYTES,
    SEALED_CHUNK_BYTES,
    TAG_BYTES,
    chunk_count,
    content_size,
    cover,
    sealed_size,
)

BORDERS = [n * CHUNK_BYTES + d for n in range(4) for d in (-1, 0, 1) if n * CHUNK_BYTES + d >= 0]
SIZES = st.one_of(st.sampled_from(BORDERS), st.integers(0, 5 * 2**40))


@given(SIZES)
def test_the_size_of_a_content_and_that_of_its_stored_bytes_give_each_other(size: int) -> None:
    assert content_size(sealed_size(size)) == size
    assert sealed_size(size) == size + TAG_BYTES * chunk_count(size)


@given(SIZES)
def test_a_number_of_bytes_that_no_content_has_is_refused(stored: int) -> None:
    try:
        size = content_size(stored)
    except ValueError:
        nearest = max(0, stored - TAG_BYTES * chunk_count(stored))
        near = (sealed_size(max(0, nearest + delta)) for delta in range(-64, 65))
        assert stored not in set(near)
    else:
        assert sealed_size(size) == stored


def test_no_two_sizes_around_a_border_are_stored_alike() -> None:
    sizes = range(CHUNK_BYTES - 40, CHUNK_BYTES + 40)
    assert len({sealed_size(size) for size in sizes}) == len(sizes)
    for stored in range(CHUNK_BYTES + TAG_BYTES + 1, CHUNK_BYTES + 2 * TAG_BYTES + 1):
        with pytest.raises(ValueError, match="no content"):
            content_size(stored)


@given(SIZES.filter(bool), st.data())
def test_the_cover_of_a_range_is_the_chunks_that_it_touches(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(first + 1, size))
    found = cover(size, first, stop)
    assert found.first_chunk * CHUNK_BYTES <= first < (found.first_chunk + 1) * CHUNK_BYTES
    assert (found.stop_chunk - 1) * CHUNK_BYTES < stop <= found.stop_chunk * CHUNK_BYTES
    assert found.skip == first - found.first_chunk * CHUNK_BYTES
    assert found.stored_first == found.first_chunk * SEALED_CHUNK_BYTES
    whole = min(found.stop_chunk * CHUNK_BYTES, size) - found.first_chunk * CHUNK_BYTES
    chunks = found.stop_chunk - found.first_chunk
    assert found.stored_stop - found.stored_first == whole + chunks * TAG_BYTES
