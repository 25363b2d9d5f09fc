"""Tokens of identity providers: which are believed, and how often a provider is asked."""

import asyncio
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.identities.web_identity import (
    COOL_DOWN_SECONDS,
    KEEP_SECONDS,
    KEEP_UNREACHABLE_SECONDS,
    ExpiredIdentityToken,
    InvalidIdentityToken,
    ProviderUnreachable,
    WebIdentities,
    WebIdentityError,
)
from tests.iam.oidc_provider import CLIENT, Issuer, Key, encoded

NOW = 1_700_000_000.0
URL = "https://idp.example.com"
RSA, EC = Key.rsa("rsa-1"), Key.ec("ec-1")
SMALL = Key.rsa("small", 1024)


class Fixture:
    """A verifier that knows one provider, with its time and what it fetched."""

    def __init__(self, *keys: Key) -> None:
        self.issuer = Issuer(URL, list(keys or (RSA,)))
        self.now = NOW
        self.verifier = WebIdentities(self.fetch, lambda: self.now, lambda: self.now)

    async def fetch(self, url: str) -> bytes:
        found = self.issuer.document(url.removeprefix(URL))
        if found is None:
            raise ProviderUnreachable(url)
        return found

    def clients(self, issuer: str) -> tuple[str, ...] | None:
        return (CLIENT, "app-2") if issuer == URL else None

    async def verify(self, token: str) -> Any:
        return await self.verifier.verify(token, self.clients)

    def claims(self, **changed: Any) -> dict[str, Any]:
        return self.issuer.claims(now=self.now, **changed)

    async def good(self, **changed: Any) -> Any:
        return await self.verify(self.issuer.token(self.claims(**changed)))

    async def refused(self, token: str, kind: type[WebIdentityError]) -> None:
        with pytest.raises(kind):
            await self.verify(token)


@pytest.fixture
def idp() -> Fixture:
    return Fixture()


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_token_of_the_provider_proves_who_has_it(key: Key) -> None:
    identity = await Fixture(key).good(email="a@example.com", email_verified=True, groups=["x", 7])
    assert (identity.subject, identity.audience, identity.issuer) == ("user-1", CLIENT, URL)
    assert identity.conditions == {
        "idp.example.com:sub": ("user-1",),
        "idp.example.com:aud": (CLIENT,),
        "idp.example.com:oaud": (CLIENT,),
        "idp.example.com:email": ("a@example.com",),
        "idp.example.com:email_verified": ("true",),
        "idp.example.com:groups": ("x", "7"),
    }


async def test_azp_stands_for_the_audience(idp: Fixture) -> None:
    identity = await idp.good(aud=["elsewhere", CLIENT], azp="app-2")
    assert identity.audience == "app-2"
    assert identity.conditions["idp.example.com:aud"] == ("app-2",)
    assert identity.conditions["idp.example.com:oaud"] == ("elsewhere", CLIENT)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "another"},
        {"aud": [CLIENT, "another"]},
        {"aud": CLIENT, "azp": "another"},
        {"aud": CLIENT, "azp": 7},
        {"aud": None},
        {"aud": []},
        {"aud": [7]},
        {"aud": {"a": 1}},
        {"iss": "https://evil.example.com"},
        {"iss": URL + "/"},
        {"iss": None},
        {"iss": [URL]},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": 1e300},
        {"nbf": NOW + 3600},
        {"nbf": "x"},
        {"iat": NOW + 3600},
        {"https://aws.amazon.com/tags": []},
        {"https://aws.amazon.com/tags": {"principal_tags": {"a": ["1", "2"]}}},
        {"https://aws.amazon.com/tags": {"transitive_tag_keys": [7]}},
    ],
    ids=str,
)
async def test_claims_that_do_not_fit_are_refused(idp: Fixture, changed: dict[str, Any]) -> None:
    await idp.refused(idp.issuer.token(idp.claims(**changed)), InvalidIdentityToken)


async def test_a_token_ends_to_the_second(idp: Fixture) -> None:
    token = idp.issuer.token(idp.claims(exp=NOW + 10))
    idp.now = NOW + 9.9
    assert (await idp.verify(token)).subject == "user-1"
    idp.now = NOW + 10
    await idp.refused(token, ExpiredIdentityToken)


async def test_a_clock_that_is_a_little_ahead_is_tolerated(idp: Fixture) -> None:
    assert (await idp.good(nbf=NOW + 30, iat=NOW + 30)).subject == "user-1"


async def test_session_tags_of_the_provider_are_read(idp: Fixture) -> None:
    tags = {"principal_tags": {"team": ["a"], "x": "y"}, "transitive_tag_keys": ["team"]}
    identity = await idp.good(**{"https://aws.amazon.com/tags": tags})
    assert (identity.tags, identity.transitive_tags) == ({"team": "a", "x": "y"}, ("team",))


def forged(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None = None) -> str:
    """A token without a signature, or with an HMAC under `secret`."""
    head, body = (encoded(json.dumps(part).encode()) for part in (header, claims))
    text = f"{head}.{body}".encode()
    signature = hmac.digest(secret, text, hashlib.sha256) if secret is not None else b""
    return f"{text.decode()}.{encoded(signature)}"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 7, ["RS256"]])
async def test_a_token_without_a_signature_is_refused(idp: Fixture, algorithm: Any) -> None:
    token = forged({"alg": algorithm, "kid": RSA.kid}, idp.claims())
    await idp.refused(token, InvalidIdentityToken)
    assert idp.issuer.asked == []  # nobody is asked for its sake


async def test_the_public_key_is_no_shared_secret(idp: Fixture) -> None:
    modulus = RSA.jwk()["n"].encode()
    for secret in (RSA.public_pem(), RSA.public_pem().strip(), modulus):
        token = forged({"alg": "HS256", "kid": RSA.kid}, idp.claims(), secret)
        await idp.refused(token, InvalidIdentityToken)


async def test_a_key_is_used_with_its_own_kind_of_algorithm() -> None:
    idp = Fixture(RSA, EC)
    for key, other in ((RSA, EC), (EC, RSA)):
        token = idp.issuer.token(idp.claims(), key=key, headers={"kid": other.kid})
        await idp.refused(token, InvalidIdentityToken)


async def test_a_key_of_a_stranger_under_a_known_name_proves_nothing(idp: Fixture) -> None:
    token = idp.issuer.token(idp.claims(), key=Key.rsa(RSA.kid))
    await idp.refused(token, InvalidIdentityToken)


async def test_a_key_in_the_token_itself_proves_nothing(idp: Fixture) -> None:
    stranger = Key.rsa("mine")
    headers = {"jwk": stranger.jwk(), "jku": "https://evil.example.com/keys"}
    token = idp.issuer.token(idp.claims(), key=stranger, headers=headers)
    await idp.refused(token, InvalidIdentityToken)
    assert set(idp.issuer.asked) == {"/.well-known/openid-configuration", "/keys"}


async def test_keys_that_are_too_weak_are_not_used() -> None:
    idp = Fixture(SMALL)
    with pytest.warns(match="RSA key"):
        token = idp.issuer.token(idp.claims())
    await idp.refused(token, InvalidIdentityToken)


@pytest.mark.parametrize("extra", [{"crit": ["x"], "x": 1}, {"b64": False}])
async def test_extensions_that_are_not_understood_are_refused(
    idp: Fixture, extra: dict[str, Any]
) -> None:
    token = idp.issuer.token(idp.claims())
    _, body, signature = token.split(".")
    head = encoded(json.dumps({"alg": "RS256", "kid": RSA.kid, **extra}).encode())
    await idp.refused(f"{head}.{body}.{signature}", InvalidIdentityToken)


async def test_without_a_kid_the_only_key_is_meant() -> None:
    alone, several = Fixture(RSA), Fixture(RSA, EC)
    for idp in (alone, several):
        claims = idp.claims()
        with_kid = idp.issuer.token(claims, key=RSA)
        head = encoded(json.dumps({"alg": "RS256"}).encode())
        text = f"{head}.{with_kid.split('.')[1]}"
        signature = _sign(RSA, text)
        token = f"{text}.{signature}"
        if idp is alone:
            assert (await idp.verify(token)).subject == "user-1"
        else:
            await idp.refused(token, InvalidIdentityToken)


def _sign(key: Key, text: str) -> str:
    from jwt.algorithms import RSAAlgorithm

    return encoded(RSAAlgorithm(RSAAlgorithm.SHA256).sign(text.encode(), key.private))


async def test_rotated_keys_are_fetched_once_per_cool_down(idp: Fixture) -> None:
    await idp.good()
    assert idp.issuer.asked == ["/.well-known/openid-configuration", "/keys"]
    await idp.good()
    assert len(idp.issuer.asked) == 2
    idp.issuer.keys = [Key.rsa("rsa-2")]
    await idp.refused(idp.issuer.token(idp.claims()), InvalidIdentityToken)  # too early
    assert len(idp.issuer.asked) == 2
    idp.now += COOL_DOWN_SECONDS
    assert (await idp.good()).subject == "user-1"
    assert len(idp.issuer.asked) == 4
    old = idp.issuer.token(idp.claims(), key=RSA)
    for _ in range(10):
        await idp.refused(old, InvalidIdentityToken)
    assert len(idp.issuer.asked) == 4


async def test_a_crowd_asks_the_provider_once(idp: Fixture) -> None:
    stranger = Key.rsa("nobody's")
    tokens = [idp.issuer.token(idp.claims(sub=f"user-{n}")) for n in range(20)]
    tokens += [idp.issuer.token(idp.claims(), key=stranger)] * 20
    found = await asyncio.gather(*map(idp.verify, tokens), return_exceptions=True)
    assert [each.subject for each in found[:20]] == [f"user-{n}" for n in range(20)]
    assert all(isinstance(each, InvalidIdentityToken) for each in found[20:])
    assert len(idp.issuer.asked) == 2


async def test_a_revoked_key_is_good_for_an_hour_at_most(idp: Fixture) -> None:
    await idp.good()
    idp.issuer.keys = [EC]
    idp.now += KEEP_SECONDS
    await idp.refused(idp.issuer.token(idp.claims(), key=RSA), InvalidIdentityToken)


async def test_keys_outlive_a_provider_that_is_away_by_a_day(idp: Fixture) -> None:
    await idp.good()
    idp.issuer.broken = True
    idp.now += KEEP_UNREACHABLE_SECONDS - 1
    assert (await idp.good()).subject == "user-1"
    idp.now += COOL_DOWN_SECONDS + 1
    await idp.refused(idp.issuer.token(idp.claims()), ProviderUnreachable)


async def test_a_provider_that_is_away_is_not_asked_again_at_once(idp: Fixture) -> None:
    idp.issuer.broken = True
    for _ in range(5):
        await idp.refused(idp.issuer.token(idp.claims()), ProviderUnreachable)
    assert len(idp.issuer.asked) == 1
    idp.issuer.broken = False
    idp.now += COOL_DOWN_SECONDS
    assert (await idp.good()).subject == "user-1"


@pytest.mark.parametrize(
    "overrides",
    [
        {"issuer": "https://evil.example.com"},
        {"jwks_uri": "http://idp.example.com/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user:secret@idp.example.com/keys"},
        {"jwks_uri": "https://[::1"},
        {"jwks_uri": None},
    ],
    ids=str,
)
async def test_a_discovery_document_that_leads_elsewhere_is_refused(
    idp: Fixture, overrides: dict[str, Any]
) -> None:
    idp.issuer.overrides = overrides
    await idp.refused(idp.issuer.token(idp.claims()), ProviderUnreachable)
    assert idp.issuer.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{", b'{"keys": {}}', b'{"keys": [7, null, {}]}', b"\xff", b"[" * 9999]
)
async def test_keys_that_are_none_are_refused(idp: Fixture, answer: bytes) -> None:
    async def fetch(url: str) -> bytes:
        return answer if url.endswith("/keys") else await idp.fetch(url)

    verifier = WebIdentities(fetch, lambda: NOW, lambda: NOW)
    with pytest.raises(WebIdentityError):
        await verifier.verify(idp.issuer.token(idp.claims()), idp.clients)


GOOD = Fixture().issuer.token(Issuer(URL).claims(now=NOW), key=RSA)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
async def test_a_token_with_any_character_changed_is_refused(place: int, other: str) -> None:
    changed = GOOD[:place] + other + GOOD[place + 1 :]
    if changed != GOOD:
        await Fixture().refused(changed, WebIdentityError)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
async def test_any_other_text_is_refused(text: str) -> None:
    await Fixture().refused(text, WebIdentityError)
