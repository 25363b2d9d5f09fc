from __future__ import annotations

import hashlib
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyeclib.ec_iface import ECDriver

from erasure.codec import LIBRARY_HEADER_BYTES, Buffer, NotDecodable, codec_of
from erasure.scheme import Scheme
from erasure.stripes import Geometry

SCHEMES = [Scheme.parse(text) for text in ("4+2", "8+3", "2+1", "1+2")]
STRIPE_BYTES = 4096
LENGTHS = [1, 2, 3, 7, 17, 1001, STRIPE_BYTES - 1, STRIPE_BYTES, STRIPE_BYTES + 1]

schemes = st.sampled_from([*SCHEMES, Scheme.parse("7+2"), Scheme.parse("3+5"), Scheme.parse("1+0")])


def content(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def joined(buffers: list[Buffer]) -> bytes:
    return b"".join(buffers)


def multiply(a: int, b: int) -> int:
    """In GF(2^8) with the polynomial x^8+x^4+x^3+x^2+1."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a: int) -> int:
    return next(b for b in range(256) if multiply(a, b) == 1)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_loss_pattern_decodes_and_rebuilds_every_fragment(
    scheme: Scheme, length: int
) -> None:
    stripe = content(length)
    codec = codec_of(scheme)
    fragments = codec.encode(stripe)
    assert [len(one) for one in fragments] == [scheme.fragment_bytes(length)] * scheme.width
    for losses in range(scheme.tolerance + 1):
        for lost in combinations(range(scheme.width), losses):
            left = {i: one for i, one in enumerate(fragments) if i not in lost}
            assert joined(codec.decode(left, length)) == stripe
            for index in lost:
                assert codec.reconstruct(left, index, length) == fragments[index]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_exactly_the_minimal_read_is_enough_in_any_order(scheme: Scheme) -> None:
    length = 1001
    codec = codec_of(scheme)
    fragments = codec.encode(content(length))
    for available in combinations(range(scheme.width), scheme.data):
        left = {i: fragments[i] for i in reversed(available)}
        assert joined(codec.decode(left, length)) == content(length)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_too_few_fragments_are_an_error_and_never_bytes(scheme: Scheme) -> None:
    length = 100
    codec = codec_of(scheme)
    fragments = codec.encode(content(length))
    for lost in combinations(range(scheme.width), scheme.tolerance + 1):
        left = {i: one for i, one in enumerate(fragments) if i not in lost}
        with pytest.raises(NotDecodable):
            codec.decode(left, length)
        with pytest.raises(NotDecodable):
            codec.reconstruct(left, lost[0], length)


@settings(max_examples=150, deadline=None)
@given(schemes, st.integers(1, 200), st.integers(0, 900), st.data())
def test_a_blob_with_losses_in_each_stripe_reads_back_in_every_range(
    scheme: Scheme, stripe_bytes: int, size: int, data: st.DataObject
) -> None:
    blob = Geometry(scheme, stripe_bytes, size)
    codec = codec_of(scheme)
    whole = content(size)
    stripes = [
        codec.encode(whole[i * stripe_bytes : (i + 1) * stripe_bytes])
        for i in range(blob.stripe_count)
    ]
    if not size:
        assert stripes == []
        return
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    read = b""
    for part in blob.parts(first, last):
        shards = data.draw(st.permutations(range(scheme.width)))
        available = shards[data.draw(st.integers(0, scheme.tolerance)) :]
        chosen = scheme.minimal_read(available, part.fragments)
        assert chosen is not None
        got = {i: stripes[part.stripe][i] for i in chosen}
        read += joined(codec.decode(got, part.stripe_length, part.start, part.stop))
    assert read == whole[first : last + 1]


@settings(max_examples=100, deadline=None)
@given(schemes.filter(lambda scheme: scheme.data > 1), st.integers(1, 5000))
def test_the_library_pads_to_a_multiple_of_k_bytes_and_keeps_data_plain(
    scheme: Scheme, length: int
) -> None:
    driver = ECDriver(ec_type="isa_l_rs_cauchy", k=scheme.data, m=scheme.parity)
    stripe = content(length)
    encoded = [piece[LIBRARY_HEADER_BYTES:] for piece in driver.encode(stripe)]
    size = scheme.fragment_bytes(length)
    assert {len(piece) for piece in encoded} == {size}
    assert b"".join(encoded[: scheme.data]) == stripe.ljust(size * scheme.data, b"\0")
    assert [bytes(one) for one in codec_of(scheme).encode(stripe)] == encoded


@settings(max_examples=50, deadline=None)
@given(schemes.filter(lambda scheme: scheme.data > 1), st.integers(1, 5000), st.integers(0, 2**32))
def test_library_headers_depend_on_index_and_length_only(
    scheme: Scheme, length: int, seed: int
) -> None:
    drivers = [
        ECDriver(ec_type="isa_l_rs_cauchy", k=scheme.data, m=scheme.parity) for _ in range(2)
    ]
    stripes = (bytes(length), random.Random(seed).randbytes(length))
    headers = [
        [piece[:LIBRARY_HEADER_BYTES] for piece in driver.encode(stripe)]
        for driver, stripe in zip(drivers, stripes, strict=True)
    ]
    assert headers[0] == headers[1]


@pytest.mark.parametrize("scheme", SCHEMES[:3], ids=str)
def test_parity_is_the_cauchy_code_that_the_format_names(scheme: Scheme) -> None:
    fragments = codec_of(scheme).encode(content(64))
    data = fragments[: scheme.data]
    for i in range(scheme.data, scheme.width):
        expected = bytearray(len(fragments[0]))
        for j, fragment in enumerate(data):
            factor = inverse(i ^ j)
            for at, byte in enumerate(bytes(fragment)):
                expected[at] ^= multiply(factor, byte)
        assert fragments[i] == bytes(expected)


def test_stored_parity_is_the_same_for_ever() -> None:
    stripe = bytes(i * 7 % 256 for i in range(1000))
    digest = hashlib.sha256(b"".join(codec_of(Scheme.parse("4+2")).encode(stripe))).hexdigest()
    assert digest == "cd841ad5a174152500032fce6076d464fa421159d0ad18e9ae92d8897dc511a0"


def test_a_read_with_all_data_copies_nothing() -> None:
    stripe = content(1000)
    for scheme in SCHEMES:
        codec = codec_of(scheme)
        fragments = codec.encode(stripe)
        for fragment in fragments[: scheme.data - 1]:
            assert (fragment.obj if isinstance(fragment, memoryview) else fragment) is stripe
        received = {i: bytes(one) for i, one in enumerate(fragments)}
        for index, buffer in enumerate(codec.decode(received, len(stripe))):
            owner = buffer.obj if isinstance(buffer, memoryview) else buffer
            assert owner is received[index]


def test_other_buffers_than_bytes_are_taken() -> None:
    stripe = content(1001)
    for scheme in SCHEMES:
        codec = codec_of(scheme)
        expected = [bytes(one) for one in codec.encode(stripe)]
        for buffer in (bytearray(stripe), memoryview(stripe), memoryview(bytearray(stripe))):
            assert [bytes(one) for one in codec.encode(buffer)] == expected
        left: dict[int, Buffer] = {
            i: memoryview(bytearray(one)) for i, one in enumerate(expected) if i > 0
        }
        assert joined(codec.decode(left, 1001)) == stripe


def test_lengths_indexes_and_ranges_that_do_not_fit_are_refused() -> None:
    for scheme in SCHEMES:
        codec = codec_of(scheme)
        good: dict[int, Buffer] = dict(enumerate(codec.encode(content(100))))
        with pytest.raises(ValueError, match="at least one byte"):
            codec.encode(b"")
        with pytest.raises(ValueError, match="instead of"):
            codec.decode({**good, 0: bytes(good[0]) + b"x"}, 100)
        with pytest.raises(ValueError, match="instead of"):
            codec.decode(good, 50)
        with pytest.raises(ValueError, match="no fragment"):
            codec.decode({**good, scheme.width: good[0]}, 100)
        with pytest.raises(ValueError, match="no fragment"):
            codec.reconstruct(good, -1, 100)
        for start, stop in ((-1, 5), (6, 5), (0, 101)):
            with pytest.raises(ValueError, match="not in a stripe"):
                codec.decode(good, 100, start, stop)
        assert codec.decode(good, 100, 7, 7) == []


def test_damaged_bytes_go_through_unnoticed_so_callers_must_check_them() -> None:
    """If this ever fails the library has begun to verify; until then checksums come first."""
    codec = codec_of(Scheme.parse("4+2"))
    fragments = dict(enumerate(codec.encode(content(100))))
    del fragments[0]
    damaged = bytearray(fragments[4])
    damaged[3] ^= 1
    fragments[4] = damaged
    assert joined(codec.decode(fragments, 100)) != content(100)
