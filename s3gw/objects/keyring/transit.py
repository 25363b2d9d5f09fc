"""Named keys in the transit engine of HashiCorp Vault or OpenBao: the home of httpx for it.

The key never leaves it. A data key is encrypted there (`encrypt`), opened again (`decrypt`), and
moved under the newest version of its key (`rewrap`). What it belongs to, its context, is encrypted
with it and compared when it is opened: `rewrap` takes no associated data.

    POST /v1/<mount>/encrypt/<key>   {"plaintext": base64}    {"data": {"ciphertext": "vault:v1:…"}}
    POST /v1/<mount>/decrypt/<key>   {"ciphertext": …}        {"data": {"plaintext": base64}}
    POST /v1/<mount>/rewrap/<key>    {"ciphertext": …}        {"data": {"ciphertext": "vault:v2:…"}}

Source: Vault documentation, "Transit secrets engine (API)"; OpenBao documents the same.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from s3gw import errors
from s3gw.objects.content.sealing import KEY_BYTES, NotAuthentic

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
CONTEXT_BYTES = 32
TOKEN_HEADER = "X-Vault-Token"  # noqa: S105 (a name)
TOKEN = re.compile(r"[!-~]+")
CIPHERTEXT = re.compile(r"vault:v(\d+):[A-Za-z0-9+/=]+")
MISSING = ("not found", "no existing key", "could not be found")


class Transit:
    """The keys of one transit mount. The token is read anew for every request, as whoever renews
    it writes it into the file."""

    def __init__(
        self,
        address: str,
        token_file: Path,
        *,
        mount: str = "transit",
        client: httpx.AsyncClient | None = None,
    ) -> None:
        import httpx  # 11 MiB, which only a store with such a service needs

        self._http_error = httpx.HTTPError
        self._base = f"{address.rstrip('/')}/v1/{mount.strip('/')}"
        self._token_file = token_file
        self._client = client or httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def wrap(self, name: str, data_key: bytes, context: bytes) -> str:
        """The data key under the newest version of a key. Raises KMSNotFoundException,
        ServiceUnavailable."""
        plain = data_key + sha256(context).digest()
        answer = await self._call("encrypt", name, {"plaintext": b64encode(plain).decode()})
        return _ciphertext(answer)

    async def unwrap(self, name: str, ciphertext: str, context: bytes) -> bytes:
        """The data key. Raises NotAuthentic, KMSNotFoundException, ServiceUnavailable."""
        answer = await self._call("decrypt", name, {"ciphertext": ciphertext})
        try:
            plain = b64decode(answer["plaintext"], validate=True)
        except (KeyError, TypeError, ValueError):
            raise _odd_answer() from None
        bound = hmac.compare_digest(plain[KEY_BYTES:], sha256(context).digest())
        if len(plain) != KEY_BYTES + CONTEXT_BYTES or not bound:
            raise NotAuthentic("the data key is another content's")
        return plain[:KEY_BYTES]

    async def rewrap(self, name: str, ciphertext: str) -> str:
        """The same under the newest version of the key. Raises as `wrap`."""
        return _ciphertext(await self._call("rewrap", name, {"ciphertext": ciphertext}))

    async def _call(self, action: str, name: str, body: dict[str, str]) -> dict[str, Any]:
        url = f"{self._base}/{action}/{quote(name, safe='')}"
        try:
            token = (await asyncio.to_thread(self._token_file.read_text, "ascii")).strip()
            if not TOKEN.fullmatch(token):  # of what no header can hold the error would show it all
                raise ValueError("the token file holds no token")
            headers = {TOKEN_HEADER: token}
            answer = await self._client.post(url, json=body, headers=headers)
            found = answer.json()
        except (OSError, self._http_error, ValueError) as error:
            log.warning("the key management service: %s: %s", type(error).__name__, error)
            raise _unavailable() from error
        problems = found.get("errors") if isinstance(found, dict) else None
        text = " ".join(map(str, problems)) if isinstance(problems, list) else ""
        if answer.status_code in (400, 404) and any(word in text for word in MISSING):
            raise errors.KMSNotFoundException(f"Key '{name}' does not exist")
        if action == "decrypt" and answer.status_code == 400:
            raise NotAuthentic("the key management service does not open the data key")
        if answer.status_code != 200:
            log.warning("the key management service: %s %s", answer.status_code, text[:300])
            raise _unavailable()
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, dict):
            raise _odd_answer()
        return data


def _ciphertext(answer: dict[str, Any]) -> str:
    text = answer.get("ciphertext")
    if not isinstance(text, str) or not CIPHERTEXT.fullmatch(text):
        raise _odd_answer()
    return text


def version_of(ciphertext: str) -> int:
    """The version of the key that this is under.

    >>> version_of("vault:v3:AAAA")
    3
    """
    found = CIPHERTEXT.fullmatch(ciphertext)
    return int(found[1]) if found else 0


def _unavailable() -> errors.S3Error:
    return errors.ServiceUnavailable(
        "The key management service does not answer.", headers=dict(errors.RETRY_SOON)
    )


def _odd_answer() -> errors.S3Error:
    log.warning("the key management service answers what its interface does not have")
    return _unavailable()
