"""Web identities: proving a token of an OpenID Connect provider that the account trusts.

    token → algorithm, issuer → registered provider → its keys → signature → claims

Nothing of a token is believed before its signature is right, but for two words that only choose
among what the account has registered: the issuer names the provider, `kid` one of its public keys.
Only asymmetric algorithms are accepted, so a public key can never be taken for a shared secret, and
a key is used with the one family of algorithms that it is made for.

The keys are found as OpenID Connect Discovery 1.0 says: the document at
`<issuer>/.well-known/openid-configuration` names the issuer itself and the `jwks_uri`. They are
kept for an hour. A token that names a key which is not among them has them fetched again (providers
rotate keys), but whatever strangers send a provider is asked at most once in `COOL_DOWN_SECONDS`.
When it cannot be reached, keys that were fetched before are good for a day.

Sources: RFC 7519, 7515, 7517; OpenID Connect Core 1.0 §3.1.3.7; AWS STS API Reference,
AssumeRoleWithWebIdentity; IAM User Guide, "Available keys for AWS OIDC federation".
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

if TYPE_CHECKING:
    import httpx

# One family per type of key; never "none", never an HMAC.
ALGORITHMS: Mapping[str, frozenset[str]] = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "EC": frozenset({"ES256", "ES384", "ES512"}),
    "OKP": frozenset({"EdDSA"}),
}
ACCEPTED = frozenset().union(*ALGORITHMS.values())
TOKEN_CHARACTERS_MAX = 20_000  # that of AssumeRoleWithWebIdentity
CLOCK_SKEW_SECONDS = 60
RSA_BITS = range(2048, 8193)
KEYS_MAX = 100
ANSWER_BYTES_MAX = 256 * 1024
FETCH_SECONDS_MAX = 5.0
KEEP_SECONDS = 3600.0
KEEP_UNREACHABLE_SECONDS = 24 * 3600.0
COOL_DOWN_SECONDS = 30.0
DISCOVERY = "/.well-known/openid-configuration"
# Claims about the token itself, which are no conditions on who has it.
OF_THE_TOKEN = frozenset({"exp", "iat", "nbf", "jti", "nonce", "at_hash", "c_hash", "iss"})
AWS_TAGS = "https://aws.amazon.com/tags"


class WebIdentityError(Exception):
    """A web identity was not accepted; the message is for who presented it."""


class InvalidIdentityToken(WebIdentityError):
    """The token is malformed, not signed by the provider, or not meant for this account."""


class ExpiredIdentityToken(WebIdentityError):
    """The token was good until a while ago."""


class ProviderUnreachable(WebIdentityError):
    """The provider did not answer, or not with its keys."""


@dataclass(frozen=True, slots=True)
class WebIdentity:
    """Who a token proves: `audience` is the client that it was given to (`azp`, or else `aud`),
    `conditions` the condition keys that its claims are, `<issuer>:<claim>` in lower case; `tags`
    are those of the session that the provider asks for."""

    issuer: str
    subject: str
    audience: str
    conditions: Mapping[str, tuple[str, ...]]
    tags: Mapping[str, str] = field(default_factory=dict)
    transitive_tags: tuple[str, ...] = ()


Fetch = Callable[[str], Awaitable[bytes]]
"""The body of a 200 answer to a GET. Raises ProviderUnreachable."""


@dataclass(slots=True)
class _Keys:
    """A provider's keys as known here. Times are of the monotonic clock."""

    keys: list[jwt.PyJWK] = field(default_factory=list)
    fetched: float | None = None
    tried: float | None = None
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)


class WebIdentities:
    """Verifies tokens; keeps the keys of providers."""

    def __init__(
        self,
        fetch: Fetch,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._monotonic = monotonic
        self._known: dict[str, _Keys] = {}

    async def verify(
        self, token: str, clients_of: Callable[[str], Collection[str] | None]
    ) -> WebIdentity:
        """Who the token proves. `clients_of` gives the client ids that a registered issuer may have
        given tokens to, None for an issuer nobody registered. Raises WebIdentityError."""
        header, claims = _unverified(token)
        issuer = claims.get("iss")
        clients = clients_of(issuer) if isinstance(issuer, str) else None
        if not isinstance(issuer, str) or clients is None:
            raise InvalidIdentityToken("No OpenIDConnect provider found in your account for it")
        key = await self._key(issuer, header)
        if header["alg"] not in ALGORITHMS[key.key_type or ""]:
            raise InvalidIdentityToken("The algorithm of the token does not fit the key it names")
        try:
            jwt.PyJWS(algorithms=sorted(ACCEPTED)).decode(
                token, key.key, algorithms=[header["alg"]]
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            raise InvalidIdentityToken("The ID Token's signature is not valid") from None
        self._check_times(claims)
        return _identity(issuer, claims, clients)

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock()
        times = {name: _seconds(claims, name) for name in ("exp", "nbf", "iat") if name in claims}
        if "exp" not in times:
            raise InvalidIdentityToken("The token must have an expiration time (exp)")
        if now >= times.pop("exp"):
            raise ExpiredIdentityToken("The web identity token has expired")
        if any(time > now + CLOCK_SKEW_SECONDS for time in times.values()):
            raise InvalidIdentityToken("The token is not valid yet")

    async def _key(self, issuer: str, header: Mapping[str, Any]) -> jwt.PyJWK:
        """The key that the header names, from the cache or fetched."""
        known = self._known.setdefault(issuer, _Keys())
        age = self._age(known.fetched)
        if age < KEEP_SECONDS and (found := _named(known.keys, header)) is not None:
            return found
        async with known.fetching:
            if self._age(known.tried) >= COOL_DOWN_SECONDS:
                await self._refresh(issuer, known)
        if self._age(known.fetched) >= KEEP_UNREACHABLE_SECONDS:
            raise ProviderUnreachable("The keys of the identity provider could not be fetched")
        found = _named(known.keys, header)
        if found is None:
            raise InvalidIdentityToken("The key that signed the token is not one of the provider's")
        return found

    def _age(self, when: float | None) -> float:
        return float("inf") if when is None else self._monotonic() - when

    async def _refresh(self, issuer: str, known: _Keys) -> None:
        """Fetch the keys. A failure leaves those that are known, and is not repeated at once."""
        known.tried = self._monotonic()
        try:
            known.keys = await self._keys_of(issuer)
        except ProviderUnreachable:
            if self._age(known.fetched) >= KEEP_UNREACHABLE_SECONDS:
                raise
            return
        known.fetched = self._monotonic()

    async def _keys_of(self, issuer: str) -> list[jwt.PyJWK]:
        configuration = _json_object(await self._fetch(issuer.rstrip("/") + DISCOVERY))
        address = configuration.get("jwks_uri")
        if configuration.get("issuer") != issuer or not isinstance(address, str):
            raise ProviderUnreachable("The discovery document of the identity provider is not its")
        if not is_https(address):
            raise ProviderUnreachable("The jwks_uri of the identity provider is not https")
        found = _json_object(await self._fetch(address)).get("keys")
        if not isinstance(found, list) or len(found) > KEYS_MAX:
            raise ProviderUnreachable("The identity provider did not answer with its keys")
        return [key for entry in found if (key := _usable(entry)) is not None]


class HttpFetch:
    """GET by httpx, bounded in time and size. Redirects are not followed: they could lead away from
    what an administrator registered."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, url: str) -> bytes:
        import httpx  # 11 MiB, which only a store with providers needs

        if self._client is None:
            self._client = httpx.AsyncClient(follow_redirects=False)
        body = bytearray()
        try:
            async with (
                asyncio.timeout(FETCH_SECONDS_MAX),
                self._client.stream("GET", url, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status_code != 200:
                    raise ProviderUnreachable(f"The identity provider answers {answer.status_code}")
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > ANSWER_BYTES_MAX:
                        raise ProviderUnreachable("The identity provider's answer is too long")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise ProviderUnreachable("The identity provider cannot be reached") from error
        return bytes(body)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


def is_https(url: str) -> bool:
    """Whether this is the address of something behind TLS: a provider's keys must come from it.

    >>> is_https("https://accounts.example.com/keys"), is_https("http://accounts.example.com/keys")
    (True, False)
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme == "https" and bool(host) and "@" not in parts.netloc


def without_scheme(issuer: str) -> str:
    """How condition keys and ARNs call an issuer.

    >>> without_scheme("https://accounts.example.com/tenant")
    'accounts.example.com/tenant'
    """
    return issuer.partition("://")[2]


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims as they are written, well-formed but not proven."""
    if not token.isascii() or len(token) > TOKEN_CHARACTERS_MAX:
        raise InvalidIdentityToken("The ID Token provided is not a valid JWT")
    try:
        parts = jwt.PyJWS().decode_complete(token, options={"verify_signature": False})
        claims = json.loads(parts["payload"])
    except (jwt.PyJWTError, ValueError, RecursionError, TypeError, AttributeError):
        raise InvalidIdentityToken("The ID Token provided is not a valid JWT") from None
    header = parts["header"]
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise InvalidIdentityToken("The ID Token provided is not a valid JWT")
    if not isinstance(header.get("alg"), str) or header["alg"] not in ACCEPTED:
        raise InvalidIdentityToken("The algorithm of the ID Token is not accepted")
    if "crit" in header or "b64" in header:
        raise InvalidIdentityToken("The ID Token has an extension that is not understood")
    return header, claims


def _named(keys: list[jwt.PyJWK], header: Mapping[str, Any]) -> jwt.PyJWK | None:
    """The key named by `kid`; the only one when the token names none."""
    if "kid" not in header:
        return keys[0] if len(keys) == 1 else None
    return next((key for key in keys if key.key_id == header["kid"]), None)


def _usable(entry: Any) -> jwt.PyJWK | None:
    """A key for signatures of a kind we accept; others of a provider are no concern of ours."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    if entry.get("kty") not in (*ALGORITHMS,) or "d" in entry:
        return None
    if "alg" in entry and entry["alg"] not in (*ACCEPTED,):
        return None
    try:
        key = jwt.PyJWK.from_dict(entry)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size not in RSA_BITS:
        return None
    return key


def _identity(issuer: str, claims: Mapping[str, Any], clients: Collection[str]) -> WebIdentity:
    subject, audience, party = claims.get("sub"), claims.get("aud"), claims.get("azp")
    if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
        raise InvalidIdentityToken("The token must have a subject (sub)")
    found = audience if isinstance(audience, list) else [audience]
    audiences = [each for each in found if isinstance(each, str)]
    if not audiences or len(audiences) != len(found):
        raise InvalidIdentityToken("The token must have an audience (aud)")
    if party is not None and not isinstance(party, str):
        raise InvalidIdentityToken("The claim azp of the token must be a text")
    if party is None and len(audiences) > 1:
        raise InvalidIdentityToken("A token with several audiences must have an azp")
    client = audiences[0] if party is None else party
    if client not in clients:
        raise InvalidIdentityToken("Incorrect token audience")
    prefix = without_scheme(issuer).lower()
    conditions = {
        f"{prefix}:{name.lower()}": values
        for name, value in claims.items()
        if name not in OF_THE_TOKEN and name != AWS_TAGS and (values := _values(value))
    }
    # Last, so that no claim of another spelling takes their place.
    conditions[f"{prefix}:sub"] = (subject,)
    conditions[f"{prefix}:oaud"] = tuple(audiences)
    conditions[f"{prefix}:aud"] = (client,)
    tags, transitive = _tags(claims.get(AWS_TAGS))
    return WebIdentity(issuer, subject, client, conditions, tags, transitive)


def _values(value: Any) -> tuple[str, ...]:
    """A claim as values of a condition key; () for what is not a text, number, truth or a list of
    these."""
    if isinstance(value, list):
        return tuple(text for each in value if not isinstance(each, list) for text in _values(each))
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, str | int | float):
        return (str(value),)
    return ()


def _tags(value: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    """The session tags of a token (IAM User Guide, "Pass session tags in AWS STS")."""
    if value is None:
        return {}, ()
    tags = value.get("principal_tags", {}) if isinstance(value, dict) else None
    transitive = value.get("transitive_tag_keys", []) if isinstance(value, dict) else None
    if not isinstance(tags, dict) or not isinstance(transitive, list):
        raise InvalidIdentityToken("The session tags of the token are malformed")
    found: dict[str, str] = {}
    for name, texts in tags.items():
        texts = texts if isinstance(texts, list) else [texts]
        if len(texts) != 1 or not isinstance(texts[0], str):
            raise InvalidIdentityToken("A session tag of the token must have one value")
        found[name] = texts[0]
    if not all(isinstance(each, str) for each in transitive):
        raise InvalidIdentityToken("The session tags of the token are malformed")
    return found, tuple(transitive)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise ProviderUnreachable("The identity provider did not answer with JSON") from None
    if not isinstance(found, dict):
        raise ProviderUnreachable("The identity provider did not answer with a JSON object")
    return found


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e15:
        raise InvalidIdentityToken(f"The claim {name} of the token must be a time in seconds")
    return float(value)
