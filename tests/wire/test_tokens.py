"""Page tokens carry a position back and nothing that was changed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.errors import S3Error
from s3gw.wire.tokens import Position, decode_token, encode_token

SECRET = b"a secret of the store"
CONTEXT = b"ListObjectsV2/bucket"
ARGUMENT = "continuation-token"


def refused(token: str, secret: bytes = SECRET, context: bytes = CONTEXT) -> bool:
    with pytest.raises(S3Error) as caught:
        decode_token(secret, context, token, ARGUMENT)
    assert caught.value.code == "InvalidArgument"
    assert caught.value.message == "The continuation token provided is incorrect"
    assert caught.value.fields == {"ArgumentName": ARGUMENT}
    return True


@given(st.binary(max_size=1100), st.one_of(st.none(), st.integers(1, 2**63)))
def test_a_position_comes_back(key: bytes, revision: int | None) -> None:
    position = Position(key, revision)
    token = encode_token(SECRET, CONTEXT, position)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert decode_token(SECRET, CONTEXT, token, ARGUMENT) == position


@given(data=st.data(), key=st.binary(max_size=20))
@settings(max_examples=200)
def test_a_changed_token_is_refused(data: st.DataObject, key: bytes) -> None:
    token = encode_token(SECRET, CONTEXT, Position(key, 7))
    index = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters(max_codepoint=255).filter(lambda c: c != token[index]))
    assert refused(token[:index] + character + token[index + 1 :])


@given(st.text(max_size=60))
def test_arbitrary_text_is_refused(token: str) -> None:
    assert refused(token)


@pytest.mark.parametrize("change", ["=", "\n", " ", "A"])
def test_a_token_has_one_spelling(change: str) -> None:
    token = encode_token(SECRET, CONTEXT, Position(b"key"))
    assert refused(token + change)
    assert refused(change + token)
    assert refused(token[:-1])


def test_a_token_of_another_store_or_listing_is_refused() -> None:
    token = encode_token(SECRET, CONTEXT, Position(b"key"))
    assert refused(token, secret=b"another")
    assert refused(token, context=b"ListObjectsV2/other")


def test_a_huge_token_is_refused() -> None:
    assert refused("A" * 100_000)
