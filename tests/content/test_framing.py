"""What is stored of a content gives the content back, whole and in every range."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3gw.metadata.records import Content, Description
from s3gw.objects.content.chunks import CHUNK_BYTES
from s3gw.objects.content.compression import FRAME_BYTES
from s3gw.objects.content.framing import ContentDamaged, Framing, decoded
from s3gw.objects.copy import Copying
from s3gw.objects.keyring.ring import SSE_C, Wanted
from s3gw.objects.publish import no_check
from tests.content.framed import encode, read_range

KEY, ID = b"k" * 32, b"i" * 16
BORDERS = sorted(
    {
        n + d
        for n in (0, CHUNK_BYTES, 2 * CHUNK_BYTES, FRAME_BYTES)
        for d in (-1, 0, 1)
        if n + d >= 0
    }
)
KINDS = [Framing(ID, KEY), Framing(ID, compression="zstd"), Framing(ID, KEY, "zstd")]
NAMES = ["sealed", "compressed", "both"]


def content_of(size: int, *, noise: bool) -> bytes:
    """Bytes that compress, or do not."""
    if noise:
        return random.Random(size).randbytes(size)
    return b"".join(b"line %d\n" % number for number in range(size // 6 + 1))[:size]


@pytest.mark.parametrize("framing", KINDS, ids=NAMES)
@pytest.mark.parametrize("size", BORDERS)
@pytest.mark.parametrize("noise", [False, True], ids=["text", "noise"])
async def test_sizes_around_every_border(framing: Framing, size: int, noise: bool) -> None:
    content = content_of(size, noise=noise)
    stored, compression = encode(framing, content)
    assert compression == ("zstd" if framing.compression and size > 20 and not noise else "")
    framing = Framing(ID, framing.data_key, compression)
    if not compression:
        assert len(stored) == framing.stored_size(size)
    assert b"".join(decoded(framing, size, len(stored), [stored])) == content
    edges = sorted({0, 1, size // 2, max(0, size - 1), size} & set(range(size + 1)))
    for first in edges:
        for stop in (edge for edge in edges if edge > first):
            assert await read_range(framing, size, stored, first, stop) == content[first:stop]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(KINDS),
    st.integers(1, 3 * FRAME_BYTES),
    st.booleans(),
    st.integers(1, 2 * FRAME_BYTES),
    st.integers(1, 2 * FRAME_BYTES),
    st.data(),
)
async def test_any_range_is_the_slice(
    framing: Framing, size: int, noise: bool, put: int, got: int, data: st.DataObject
) -> None:
    content = content_of(size, noise=noise)
    stored, compression = encode(framing, content, max(put, 500))
    framing = Framing(ID, framing.data_key, compression)
    first = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(first + 1, size))
    found = await read_range(framing, size, stored, first, stop, max(got, 500))
    assert found == content[first:stop]


def test_what_does_not_compress_is_stored_as_it_is() -> None:
    content = content_of(300_000, noise=True)
    assert encode(Framing(ID, compression="zstd"), content) == (content, "")


def test_a_frame_that_does_not_compress_costs_a_word() -> None:
    content = content_of(FRAME_BYTES, noise=False) + content_of(FRAME_BYTES, noise=True)
    stored, compression = encode(Framing(ID, compression="zstd"), content)
    alone, _ = encode(Framing(ID, compression="zstd"), content[:FRAME_BYTES])
    assert compression == "zstd"
    assert len(stored) == len(alone) + FRAME_BYTES + 8


async def test_bytes_missing_at_the_end_are_an_error_in_every_range() -> None:
    content = content_of(3 * CHUNK_BYTES, noise=True)
    stored, _ = encode(Framing(ID, KEY), content)
    with pytest.raises(ContentDamaged):
        await read_range(Framing(ID, KEY), len(content), stored[:-1], 0, 10)


@pytest.mark.parametrize("position", [0, 3, 4, 20, 40_000, -1, -4, -5])
async def test_damaged_frames_never_give_other_bytes(position: int) -> None:
    framing = Framing(ID, compression="zstd")
    content = content_of(2 * FRAME_BYTES + 5, noise=False)
    stored = bytearray(encode(framing, content)[0])
    stored[position % len(stored)] ^= 0xFF
    for first, stop in ((0, len(content)), (FRAME_BYTES, FRAME_BYTES + 9)):
        try:
            found = await read_range(framing, len(content), bytes(stored), first, stop)
        except ContentDamaged:
            continue
        assert found == content[first:stop]


def test_parts_of_one_upload_are_sealed_under_keys_of_their_own() -> None:
    upload = Framing(ID, KEY)
    parts = [upload.new_part(), upload.new_part()]
    sealed = [encode(part, b"the same")[0] for part in parts]
    assert sealed[0] != sealed[1]
    for part, stored in zip(parts, sealed, strict=True):
        found = upload.of_part(Content(part.content_id, 0))
        assert b"".join(decoded(found, 8, len(stored), [stored])) == b"the same"


def test_a_part_may_have_a_data_key_of_its_own() -> None:
    upload, elsewhere = Framing(ID, KEY), Framing(b"o" * 16, b"x" * 32)
    stored, _ = encode(elsewhere, b"shared")
    wrapped = upload.wrap_key(elsewhere.data_key, elsewhere.content_id)
    found = upload.of_part(Content(elsewhere.content_id, 0, "", wrapped))
    assert b"".join(decoded(found, 6, len(stored), [stored])) == b"shared"


def test_an_etag_that_hides_the_md5_differs_by_key_and_content() -> None:
    md5 = "d41d8cd98f00b204e9800998ecf8427e"
    etags = {
        Framing(ID, KEY, hides_md5=True).etag(md5),
        Framing(b"j" * 16, KEY, hides_md5=True).etag(md5),
        Framing(ID, b"l" * 32, hides_md5=True).etag(md5),
        md5,
    }
    assert len(etags) == 4
    assert all(len(etag) == 32 for etag in etags)
    assert Framing(ID, KEY).etag(md5) == md5


def test_keys_are_not_shown() -> None:
    assert "kkk" not in repr(Framing(ID, KEY))
    assert "kkk" not in repr(Wanted(SSE_C, customer_key=KEY))
    copying = Copying("o", lambda _: Description(), "", no_check, lambda _: None, source_key=KEY)
    assert "kkk" not in repr(copying)
