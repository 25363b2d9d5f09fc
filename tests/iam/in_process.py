"""The S3 port in one process over engine and drives in memory, with a clock for sessions."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any

from s3gw.auth.signer import sign
from s3gw.iam.actions import BY_NAME
from s3gw.iam.call import Services
from s3gw.identities.root import Root
from s3gw.identities.store import IdentityStore
from s3gw.identities.view import Identities
from s3gw.identities.web_identity import ProviderUnreachable, WebIdentities
from s3gw.metrics import Metrics
from s3gw.operations.call import Settings
from s3gw.server.pipeline import Edge, S3App
from s3gw.server.query_api import QueryApi, QueryEdge
from s3gw.server.resolve import Domains
from tests.iam.conftest import Keys
from tests.stores.memory_store import PROFILE, Process

ROOT = Keys("ROOTACCESSKEY", "root-secret-key")
VERSIONS = {"iam": "2010-05-08", "sts": "2011-06-15"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def text(self, name: str) -> str:
        """The text of the first element of this name."""
        for element in ET.fromstring(self.body).iter():
            if element.tag.rpartition("}")[2] == name:
                return element.text or ""
        return ""

    @property
    def keys(self) -> Keys:
        return Keys(
            self.text("AccessKeyId"), self.text("SecretAccessKey"), self.text("SessionToken")
        )


async def nowhere(url: str) -> bytes:
    raise ProviderUnreachable(url)


class Port:
    """The application and what is behind it. `ahead` is how far sessions' time is before ours."""

    def __init__(self, process: Process, view: Identities) -> None:
        self.ahead = 0.0
        self.full = False
        self.process, self.view = process, view
        storage = process.storage
        self.store = IdentityStore(storage.store, self.clock_ms, view.catch_up)
        domains, metrics = Domains(), Metrics()
        settings = Settings("us-east-1", PROFILE, "http://s3.test")
        s3 = S3App(Edge(storage, view, settings, domains, metrics))
        services = Services(self.store, view, WebIdentities(nowhere), "us-east-1")
        self.app = QueryApi(QueryEdge(services, domains, metrics, lambda: self.full), s3)

    @classmethod
    async def open(cls, process: Process) -> Port:
        kv, identity = process.storage.store.kv, process.storage.store.identity
        view = Identities(kv, Root(ROOT.access_key, ROOT.secret_key), identity)
        await view.load()
        port = cls(process, view)
        view._clock_ms = port.clock_ms
        return port

    async def another(self) -> Port:
        """Another process of the same store, at the same time."""
        port = await Port.open(self.process)
        port.ahead = self.ahead
        return port

    def clock_ms(self) -> int:
        return int((time.time() + self.ahead) * 1000)

    async def ask(self, action: str, keys: Keys = ROOT, **parameters: str) -> Answer:
        """An action of IAM or STS."""
        service = BY_NAME[action].service.name
        form = {"Action": action, "Version": VERSIONS[service], **parameters}
        kind = {"content-type": "application/x-www-form-urlencoded"}
        body = urllib.parse.urlencode(form).encode()
        return await self.send("POST", "/", body, keys, headers=kind, service=service)

    async def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        keys: Keys = ROOT,
        *,
        headers: dict[str, str] | None = None,
        service: str = "s3",
    ) -> Answer:
        """A signed request."""
        found = {"host": "s3.test", "content-length": str(len(body)), **(headers or {})}
        if keys.token is not None:
            found["x-amz-security-token"] = keys.token
        signed = sign(
            method,
            target.encode(),
            found,
            body,
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            region="us-east-1",
            now=time.time(),
            service=service.encode(),
        )
        path, _, query = target.partition("?")
        return await self.send_as_is(method, path, query, signed, body)

    async def send_as_is(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes = b""
    ) -> Answer:
        """A request that is signed already, or by nobody."""
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
            "client": ("192.0.2.1", 1),
        }
        return await self._run(scope, body)

    async def _run(self, scope: dict[str, Any], body: bytes) -> Answer:
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        answer = Answer(0)

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()
            return None

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await self.app(scope, receive, send)
        return answer

    async def user(self, name: str, *documents: dict[str, Any]) -> Keys:
        """A user with inline policies, and a key of it."""
        await self.store.create_user(name)
        for number, document in enumerate(documents):
            text = json.dumps({"Version": "2012-10-17", "Statement": [document]})
            await self.store.put_inline_policy("user", name, f"p{number}", text)
        record, secret = await self.store.create_access_key(name)
        return Keys(record.access_key, secret)
