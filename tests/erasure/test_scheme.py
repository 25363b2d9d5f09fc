from __future__ import annotations

import doctest
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import erasure.scheme
from erasure.scheme import DATA_MAX, PARITY_MAX, Code, Scheme

SCHEMES = [Scheme.parse(text) for text in ("4+2", "8+3", "2+1", "1+2", "1+0", "8+4/2")]


def test_worked_examples_hold() -> None:
    results = doctest.testmod(erasure.scheme)
    assert results.attempted > 0
    assert results.failed == 0


@given(st.integers(1, DATA_MAX), st.integers(1, PARITY_MAX))
def test_a_scheme_reads_back_from_its_text(data: int, parity: int) -> None:
    scheme = Scheme.parse(f"{data}+{parity}")
    assert (scheme.data, scheme.parity, scheme.width) == (data, parity, data + parity)
    assert Scheme.parse(str(scheme)) == scheme
    assert scheme.code is (Code.COPIES if data == 1 else Code.REED_SOLOMON)


@given(st.text(max_size=8))
def test_any_text_is_a_scheme_or_a_value_error(text: str) -> None:
    try:
        scheme = Scheme.parse(text)
    except ValueError:
        return
    assert str(scheme) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "4", "4+", "+2", "0+2", "4+0", "04+2", "33+2", "4+33", "4+2 ", "-4+2", "٤+٢"),
        *("8+4/", "8+4/0", "8+4/1", "8+4/4", "8+4/5", "1+3/2", "4+5/2", "3+3/2", "8+4/02"),
        *("8/2", "8+4/2/2"),
    ],
)
def test_what_is_not_a_scheme_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"scheme"):
        Scheme.parse(text)


def test_one_data_shard_is_always_copies() -> None:
    with pytest.raises(ValueError, match="copies"):
        Scheme(1, 2, Code.REED_SOLOMON)
    with pytest.raises(ValueError, match="copies"):
        Scheme(2, 1, Code.COPIES)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_loss_within_tolerance_is_decodable_and_some_loss_beyond_is_not(
    scheme: Scheme,
) -> None:
    everything = set(range(scheme.width))
    for losses in range(scheme.tolerance + 1):
        for lost in combinations(everything, losses):
            assert scheme.decodable(everything - set(lost))
    beyond = combinations(everything, scheme.tolerance + 1)
    assert any(not scheme.decodable(everything - set(lost)) for lost in beyond)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_minimal_read_decodes_and_no_part_of_it_does(scheme: Scheme) -> None:
    for count in range(scheme.width + 1):
        for available in combinations(range(scheme.width), count):
            read = scheme.minimal_read(available)
            assert (read is not None) == scheme.decodable(available)
            if read is None:
                continue
            assert set(read) <= set(available)
            assert len(set(read)) == len(read)
            assert scheme.decodable(read)
            assert not any(scheme.decodable(set(read) - {one}) for one in read)


def test_a_minimal_read_takes_data_first_and_keeps_the_preference() -> None:
    scheme = Scheme.parse("4+2")
    assert scheme.minimal_read([4, 2, 0, 5, 1]) == [2, 0, 1, 4]
    assert scheme.minimal_read([4, 2, 0, 5, 3, 1]) == [2, 0, 3, 1]
    assert Scheme.parse("1+2").minimal_read([1, 2, 0]) == [1]


def test_a_read_of_some_fragments_touches_others_only_for_a_missing_one() -> None:
    scheme = Scheme.parse("4+2")
    assert scheme.minimal_read([0, 1, 2, 3, 4, 5], [3, 1]) == [1, 3]
    assert scheme.minimal_read([0, 1, 2, 4, 5], [3, 1]) == [1, 0, 2, 4]
    assert scheme.minimal_read([0, 1, 2, 3], [5]) == [0, 1, 2, 3]
    assert scheme.minimal_read([0, 1, 5], [5]) == [5]
    assert scheme.minimal_read([0, 1, 5], [2]) is None
    assert Scheme.parse("1+2").minimal_read([2], [0]) == [2]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_repair_sets_exclude_the_shard_and_are_minimal_reads(scheme: Scheme) -> None:
    for index in range(scheme.width):
        sets = list(scheme.repair_sets(index))
        assert len(set(sets)) == len(sets)
        for one in sets:
            assert index not in one
            read = scheme.minimal_read(one, [index])
            assert read is not None
            assert sorted(read) == list(one)
    with pytest.raises(ValueError, match="no shard"):
        scheme.repair_sets(scheme.width)


def test_the_companion_survives_as_many_losses() -> None:
    for scheme in SCHEMES:
        companion = scheme.companion()
        assert companion.code is Code.COPIES
        assert companion.tolerance == scheme.tolerance
        assert companion.companion() == companion


def test_narrowing_keeps_the_tolerance_on_every_number_of_nodes() -> None:
    for scheme in SCHEMES:
        for live in range(scheme.width + 3):
            narrow = scheme.narrowed(live)
            if live <= scheme.tolerance:
                assert narrow is None
            else:
                assert narrow is not None
                assert narrow.tolerance == scheme.tolerance
                assert narrow.width == min(live, scheme.width)
