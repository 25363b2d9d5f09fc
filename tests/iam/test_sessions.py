"""Session tokens: what they carry comes back, and nothing else is ever opened."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw import errors
from s3gw.identities.sessions import (
    ROLE,
    TOKEN_CHARACTERS_MAX,
    Sealer,
    Session,
    new_credentials,
)

SECRET = bytes(range(32))
NOW = 1_700_000_000_000
SESSION = Session(
    access_key="ASIAAAAAAAAAAAAAAAAA",
    secret_key="a secret",
    kind=ROLE,
    name="reader",
    id="AROAAAAAAAAAAAAAAAAA",
    session_name="ada",
    issuer_key="AKIAAAAAAAAAAAAAAAAA",
    issued_ms=NOW,
    expires_ms=NOW + 3_600_000,
    policy='{"Statement": []}',
    policy_arns=("arn:aws:iam::000000000000:policy/p",),
    claims={"aws:principaltag/team": ("a",)},
)
SEALER = Sealer(SECRET)
TOKEN = SEALER.seal(SESSION)


def test_a_token_opens_to_what_was_sealed() -> None:
    assert SEALER.open(TOKEN, NOW) == SESSION
    assert Sealer(SECRET).open(TOKEN, NOW + 3_599_999) == SESSION


def test_two_tokens_of_one_session_differ() -> None:
    assert SEALER.seal(SESSION) != TOKEN


def test_a_token_ends_to_the_millisecond() -> None:
    with pytest.raises(errors.ExpiredToken):
        SEALER.open(TOKEN, NOW + 3_600_000)


def test_a_token_of_another_store_is_invalid() -> None:
    with pytest.raises(errors.InvalidToken):
        Sealer(bytes(32)).open(TOKEN, NOW)


def test_the_secret_shows_in_no_repr() -> None:
    assert "a secret" not in repr(SESSION)


@given(st.integers(0, len(TOKEN) - 1), st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_refused(place: int, flip: int) -> None:
    raw = bytearray(TOKEN.encode())
    raw[place] ^= flip
    with pytest.raises(errors.InvalidToken):
        SEALER.open(raw.decode("latin-1"), NOW)


@given(st.data())
def test_sealed_bytes_with_any_bit_changed_are_refused(data: st.DataObject) -> None:
    raw = bytearray(base64.urlsafe_b64decode(TOKEN))
    place = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[place // 8] ^= 1 << (place % 8)
    with pytest.raises(errors.InvalidToken):
        SEALER.open(base64.urlsafe_b64encode(raw).decode(), NOW)


@given(st.integers(0, len(TOKEN) - 1))
def test_a_token_cut_short_is_refused(length: int) -> None:
    with pytest.raises(errors.InvalidToken):
        SEALER.open(TOKEN[:length], NOW)


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidToken):
        SEALER.open(text, NOW)


@pytest.mark.parametrize(
    "text", ["", TOKEN + "=", TOKEN + "\n", " " + TOKEN, "A" * (TOKEN_CHARACTERS_MAX + 1)]
)
def test_only_the_canonical_text_is_the_token(text: str) -> None:
    with pytest.raises(errors.InvalidToken):
        SEALER.open(text, NOW)


def test_temporary_keys_look_like_those_of_aws() -> None:
    keys = {new_credentials() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("ASIA") and len(key) == 20 for key, _ in keys)
    assert all(len(secret) == 40 for _, secret in keys)
