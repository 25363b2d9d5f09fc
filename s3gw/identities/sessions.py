"""Temporary credentials: an access key, a secret, and a session token that says it all.

A token is self-contained: the session, sealed with AES-256-GCM under a key that every gateway
derives from the store's secret. Nothing is stored, so a session costs no metadata and is good on
all gateways at once. What it may do follows from the user or role that it names and is looked up
at each request: a session ends at once when that identity is gone (its unique id is in the token,
so a new one of the same name is another), or when the access key that asked for it is gone or
disabled.

    token = base64url( format:1 | sealed session (s3gw.identities.sealing) )

The format byte is authenticated with it. Base64 is accepted in its one canonical form only: no two
texts are the same token.
"""

from __future__ import annotations

import base64
import binascii
import secrets

import msgspec

from s3gw.errors import ExpiredToken, InvalidToken
from s3gw.identities.sealing import Seal, Unsealable

FORMAT = b"\x01"
PURPOSE = b"session tokens"
# A request carries its token in a header; all headers of a request share 32 KiB.
TOKEN_CHARACTERS_MAX = 12 * 1024
TEMPORARY_KEY_PREFIX = "ASIA"
_KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_KEY_CHARACTERS = 16

# Kinds of sessions.
ROLE, USER, FEDERATED, ROOT = "role", "user", "federated", "root"


class Session(msgspec.Struct, array_like=True, frozen=True):
    """What a token says. Times are Unix milliseconds.

    `kind` is how it was asked for: "role" (AssumeRole…), "user" (GetSessionToken), "federated"
    (GetFederationToken), or "root" (GetSessionToken of the account itself). `name` and `id` are of
    the role or user whose permissions it has, `session_name` is the caller's word for it.
    `issuer_key` is the long-lived access key at the beginning of it; "" for a web identity, which
    names its `provider` (an ARN) instead. `policy` is a document or "" for none, `policy_arns` name
    managed policies; with either the session may do only what these allow as well. `claims` are
    condition keys in lower case, with their values: tags, and what the provider says.
    """

    access_key: str
    secret_key: str
    kind: str
    name: str
    id: str
    session_name: str
    issuer_key: str
    issued_ms: int
    expires_ms: int
    policy: str = ""
    policy_arns: tuple[str, ...] = ()
    claims: dict[str, tuple[str, ...]] = {}
    provider: str = ""
    transitive_tags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Session(access_key={self.access_key!r}, kind={self.kind!r}, name={self.name!r})"


class Sealer:
    """Seals and opens the tokens of one store."""

    def __init__(self, store_secret: bytes) -> None:
        self._seal = Seal(store_secret, PURPOSE)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Session)

    def seal(self, session: Session) -> str:
        """The token of a session."""
        sealed = self._seal.seal(self._encoder.encode(session), FORMAT)
        return base64.urlsafe_b64encode(FORMAT + sealed).decode()

    def open(self, token: str, now_ms: int) -> Session:
        """The session of a token. Raises InvalidToken or ExpiredToken."""
        session = self._session(token)
        if now_ms >= session.expires_ms:
            raise ExpiredToken()
        return session

    def _session(self, token: str) -> Session:
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise InvalidToken()
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
            if base64.urlsafe_b64encode(raw).decode() != token or raw[:1] != FORMAT:
                raise InvalidToken()
            return self._decoder.decode(self._seal.open(raw[1:], FORMAT))
        except (ValueError, binascii.Error, Unsealable, msgspec.MsgspecError):
            raise InvalidToken() from None


def new_credentials() -> tuple[str, str]:
    """A fresh temporary access key and its secret.

    >>> key, secret = new_credentials()
    >>> key[:4], len(key), len(secret)
    ('ASIA', 20, 40)
    """
    key = "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_KEY_CHARACTERS))
    return TEMPORARY_KEY_PREFIX + key, secrets.token_urlsafe(30)
