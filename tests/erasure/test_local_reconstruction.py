"""Local reconstruction codes: what the scheme says of them is what the library does, exactly."""

from __future__ import annotations

import doctest
import hashlib
import random
from collections import Counter
from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyeclib.ec_iface import ECDriver, ECDriverError

import erasure.galois
from erasure.codec import LIBRARY_HEADER_BYTES, Buffer, NotDecodable, codec_of
from erasure.galois import Span
from erasure.scheme import Scheme, generator
from erasure.stripes import Geometry

LRC = Scheme.parse("8+4/2")
SMALL = Scheme.parse("4+3/2")
OTHERS = [Scheme.parse(text) for text in ("7+4/2", "12+4/3", "12+4/2", "9+5/3", "6+3/2")]
STRIPE_BYTES = 4096
LENGTHS = [1, 2, 7, 8, 9, 1001, STRIPE_BYTES - 1, STRIPE_BYTES, STRIPE_BYTES + 1]


def content(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def joined(buffers: list[Buffer]) -> bytes:
    return b"".join(buffers)


def losses(scheme: Scheme, most: int) -> chain[tuple[int, ...]]:
    return chain.from_iterable(combinations(range(scheme.width), n) for n in range(1, most + 1))


def test_worked_examples_of_the_arithmetic_hold() -> None:
    results = doctest.testmod(erasure.galois)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("scheme", [LRC, SMALL], ids=str)
def test_every_loss_up_to_one_beyond_the_tolerance_decodes_right_or_is_refused(
    scheme: Scheme, length: int
) -> None:
    stripe = content(length)
    codec = codec_of(scheme)
    fragments = codec.encode(stripe)
    assert [len(one) for one in fragments] == [scheme.fragment_bytes(length)] * scheme.width
    seen: Counter[tuple[int, bool]] = Counter()
    for lost in losses(scheme, scheme.tolerance + 1):
        left = {i: one for i, one in enumerate(fragments) if i not in lost}
        decodable = scheme.decodable(left)
        seen[len(lost), decodable] += 1
        if decodable:
            assert joined(codec.decode(left, length)) == stripe
            for index in lost:
                assert codec.reconstruct(left, index, length) == fragments[index]
        elif all(i * scheme.fragment_bytes(length) < length for i in range(scheme.data)):
            with pytest.raises(NotDecodable):
                codec.decode(left, length)
    assert all(decodable for count, decodable in seen if count <= scheme.tolerance)
    if scheme is LRC:
        assert seen[4, False] == 70
        assert seen[4, True] == 425


def test_what_decodes_is_what_the_library_itself_decodes() -> None:
    """For all losses of up to four shards, and a sample of larger ones."""
    driver = ECDriver(ec_type="isa_l_rs_lrc", k=8, m=4, local_parity=2)
    pieces = driver.encode(content(800))
    larger = random.Random(1).sample(list(combinations(range(12), 5)), 100)
    for lost in chain(losses(LRC, 4), larger):
        left = [piece for i, piece in enumerate(pieces) if i not in lost]
        try:
            rebuilt = driver.reconstruct(left, list(lost))
        except ECDriverError:
            rebuilt = None
        decodable = LRC.decodable(set(range(12)) - set(lost))
        assert decodable == (rebuilt is not None)
        assert rebuilt is None or rebuilt == [pieces[i] for i in lost]


@pytest.mark.parametrize("scheme", [LRC, SMALL, *OTHERS], ids=str)
def test_the_tolerance_is_exact(scheme: Scheme) -> None:
    everything = set(range(scheme.width))
    for lost in combinations(everything, scheme.tolerance):
        assert scheme.decodable(everything - set(lost))
    beyond = combinations(everything, scheme.tolerance + 1)
    assert any(not scheme.decodable(everything - set(lost)) for lost in beyond)


@pytest.mark.parametrize("scheme", [LRC, SMALL, *OTHERS], ids=str)
def test_the_library_has_the_coefficients_that_the_format_names(scheme: Scheme) -> None:
    driver = ECDriver(
        ec_type="isa_l_rs_lrc", k=scheme.data, m=scheme.parity, local_parity=scheme.local
    )
    for column in range(scheme.data):
        unit = bytes(int(column == other) for other in range(scheme.data))
        for index, piece in enumerate(driver.encode(unit)):
            assert piece[LIBRARY_HEADER_BYTES:] == generator(scheme)[index][column : column + 1]


@pytest.mark.parametrize("scheme", [LRC, SMALL, *OTHERS], ids=str)
def test_a_shard_of_a_group_is_rebuilt_from_its_group_alone(scheme: Scheme) -> None:
    length = 1001
    codec = codec_of(scheme)
    fragments = codec.encode(content(length))
    for index in range(scheme.width):
        group = set(scheme.group(index)) - {index}
        if group:
            near = {i: fragments[i] for i in group}
            assert codec.reconstruct(near, index, length) == fragments[index]
            assert next(scheme.repair_sets(index)) == tuple(sorted(group))
            one = next(iter(group))
            with pytest.raises(NotDecodable):
                codec.reconstruct({i: near[i] for i in group - {one}}, index, length)
        others = [i for i in range(scheme.width) if i != index]
        assert set(scheme.minimal_read(others, [index]) or ()) == (group or set(range(scheme.data)))


def test_the_groups_of_8_4_2() -> None:
    assert [next(LRC.repair_sets(index)) for index in (0, 3, 4, 10, 11)] == [
        (1, 2, 3, 10),
        (0, 1, 2, 10),
        (5, 6, 7, 11),
        (0, 1, 2, 3),
        (4, 5, 6, 7),
    ]
    assert next(LRC.repair_sets(9)) == tuple(range(8))


@pytest.mark.parametrize("scheme", [SMALL, LRC], ids=str)
def test_repair_sets_are_all_minimal_sets_that_rebuild_a_shard(scheme: Scheme) -> None:
    """Against a search through all sets of shards."""
    for index in range(scheme.width):
        others = [i for i in range(scheme.width) if i != index]
        expected = set()
        for size in range(1, scheme.data + 1):
            for candidate in combinations(others, size):
                span = Span(generator(scheme), candidate)
                support = span.support(index) if span.rank == size else None
                if support == set(candidate):
                    expected.add(candidate)
        sets = list(scheme.repair_sets(index))
        assert len(sets) == len(set(sets))
        assert set(sets) == expected


def test_every_repair_set_rebuilds_the_shard_right() -> None:
    length = 1001
    codec = codec_of(LRC)
    fragments = codec.encode(content(length))
    for index in range(LRC.width):
        for repair in LRC.repair_sets(index):
            chosen = {i: fragments[i] for i in repair}
            assert codec.reconstruct(chosen, index, length) == fragments[index]


def test_a_read_of_a_lost_fragment_takes_its_group_and_of_two_takes_what_is_needed() -> None:
    assert LRC.minimal_read([11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1], [0]) == [3, 2, 1, 10]
    assert LRC.minimal_read(range(1, 12), [0, 1]) == [1, 2, 3, 10]
    assert LRC.minimal_read(range(1, 12)) == [1, 2, 3, 4, 5, 6, 7, 10]
    lost_in_both = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert LRC.minimal_read(lost_in_both) == [1, 2, 3, 5, 6, 7, 10, 11]
    assert LRC.minimal_read([2, 3, 4, 5, 6, 7, 8, 9, 10], [0]) == [2, 3, 4, 5, 6, 7, 10, 8]
    assert LRC.minimal_read([1, 2, 3, 4, 5, 6, 7], [0]) is None
    assert LRC.minimal_read([1, 2, 3, 10], [0]) == [1, 2, 3, 10]
    assert LRC.minimal_read([1, 2, 3, 10], [0, 4]) is None


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([LRC, SMALL, *OTHERS]),
    st.integers(1, 200),
    st.integers(0, 900),
    st.data(),
)
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


def test_stored_parity_is_the_same_for_ever() -> None:
    stripe = bytes(i * 7 % 256 for i in range(1000))
    digest = hashlib.sha256(b"".join(codec_of(LRC).encode(stripe))).hexdigest()
    assert digest == "944ba54deca201e024730e734048c0807a468cbe51fd828b42c1efd3fc2e5f1c"
