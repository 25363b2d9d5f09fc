"""A transit engine over HTTP, as Vault and OpenBao document theirs; with real keys, so that what it
encrypted under one it opens under no other."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field

import httpx
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "s.token-of-the-gateway"


@dataclass
class FakeVault:
    """`keys` has the versions of each key; the token may do nothing with those that are `closed`.
    `broken` answers as a sealed Vault does."""

    mount: str = "transit"
    keys: dict[str, list[bytes]] = field(default_factory=dict)
    broken: bool = False
    closed: set[str] = field(default_factory=set)
    requests: list[httpx.Request] = field(default_factory=list)

    def make(self, name: str) -> None:
        self.keys[name] = [os.urandom(32)]

    def rotate(self, name: str) -> None:
        self.keys[name].append(os.urandom(32))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.broken:
            return httpx.Response(503, json={"errors": ["Vault is sealed"]})
        if request.headers.get("X-Vault-Token") != TOKEN:
            return httpx.Response(403, json={"errors": ["permission denied"]})
        prefix, _, rest = request.url.path.partition(f"/v1/{self.mount}/")
        action, _, name = rest.partition("/")
        if prefix or request.method != "POST":
            return httpx.Response(404, json={"errors": []})
        if name in self.closed:
            return httpx.Response(403, json={"errors": ["permission denied"]})
        if name not in self.keys:
            return httpx.Response(400, json={"errors": ["encryption key not found"]})
        body = json.loads(request.content)
        try:
            return httpx.Response(200, json={"data": self._do(action, name, body)})
        except (InvalidTag, ValueError, IndexError):
            return httpx.Response(400, json={"errors": ["cipher: message authentication failed"]})

    def _do(self, action: str, name: str, body: dict[str, str]) -> dict[str, str]:
        if action == "encrypt":
            return {"ciphertext": self._seal(name, b64decode(body["plaintext"]))}
        plain = self._open(name, body["ciphertext"])
        if action == "decrypt":
            return {"plaintext": b64encode(plain).decode()}
        return {"ciphertext": self._seal(name, plain)}

    def _seal(self, name: str, plain: bytes) -> str:
        nonce = os.urandom(12)
        sealed = nonce + AESGCM(self.keys[name][-1]).encrypt(nonce, plain, None)
        return f"vault:v{len(self.keys[name])}:{b64encode(sealed).decode()}"

    def _open(self, name: str, text: str) -> bytes:
        _, version, sealed = text.split(":")
        data = b64decode(sealed)
        key = self.keys[name][int(version[1:]) - 1]
        return AESGCM(key).decrypt(data[:12], data[12:], None)
