"""Version ids: one spelling each, in the order of their sequences, and nothing else is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.errors import InvalidArgument
from s3gw.wire.version_ids import (
    NULL_VERSION,
    decode_version_id,
    encode_version_id,
    sequence_named,
)

SEQUENCES = st.integers(1, 2**64 - 1)


@given(SEQUENCES)
def test_an_id_names_its_sequence_and_needs_no_escaping(sequence: int) -> None:
    text = encode_version_id(sequence)
    assert decode_version_id(text) == sequence
    assert len(text) == 16
    assert text.isalnum()
    assert text.isascii()
    assert text == text.lower()


@given(SEQUENCES, SEQUENCES)
def test_ids_order_as_versions_were_made(first: int, second: int) -> None:
    assert (first < second) == (encode_version_id(first) < encode_version_id(second))


def test_null_names_the_null_version() -> None:
    assert decode_version_id("null") == NULL_VERSION
    assert sequence_named("null") == NULL_VERSION
    assert sequence_named(None) is None


@given(SEQUENCES, st.integers(0, 15), st.sampled_from("0123456789abcdefghijklmnopqrstuvwxyzV=-"))
def test_an_id_with_another_character_is_no_id_or_names_another(
    sequence: int, place: int, character: str
) -> None:
    text = encode_version_id(sequence)
    changed = text[:place] + character + text[place + 1 :]
    named = sequence_named(changed)
    assert (named == sequence) == (changed == text)
    assert named is None or encode_version_id(named) == changed


@given(st.text(max_size=20))
def test_any_text_is_refused_or_is_the_one_spelling(text: str) -> None:
    named = sequence_named(text)
    assert named is None or text == ("null" if named == NULL_VERSION else encode_version_id(named))


@pytest.mark.parametrize(
    "text", ["", "Null", "0" * 16, "v" * 16, "ÿ" * 16, encode_version_id(1).upper()]
)
def test_what_is_no_id_is_refused_by_the_name_of_its_parameter(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode_version_id(text, "version-id-marker")
    assert caught.value.fields["ArgumentName"] == "version-id-marker"
