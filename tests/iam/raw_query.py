"""The query protocol over a plain connection: sends exactly what it is told to."""

import hashlib
import http.client
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from compose.s3_http import Signer
from tests.iam.conftest import Keys

FORM = "application/x-www-form-urlencoded; charset=utf-8"
VERSIONS = {"iam": "2010-05-08", "sts": "2011-06-15", "s3": "2010-05-08"}


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    def text(self, name: str) -> str:
        """The text of the first element of this name."""
        for element in ET.fromstring(self.body).iter():
            if element.tag.rpartition("}")[2] == name:
                return element.text or ""
        return ""

    @property
    def code(self) -> str:
        return self.text("Code")


def encoded(parameters: Mapping[str, str]) -> bytes:
    return urllib.parse.urlencode(parameters).encode()


def send(
    endpoint: str,
    body: bytes,
    keys: Keys | None,
    *,
    service: str = "iam",
    method: str = "POST",
    target: str = "/",
    headers: Mapping[str, str] | None = None,
    sent: bytes | None = None,
    region: str = "us-east-1",
) -> Answer:
    """Sign `body` (if there are keys) and send it, or `sent` in its place."""
    host = urlsplit(endpoint).netloc
    found = {"host": host, "content-type": FORM, **(headers or {})}
    if keys is not None:
        path, _, query = target.partition("?")
        signer = Signer(keys.access_key, keys.secret_key, region, service)
        if keys.token is not None:
            found["x-amz-security-token"] = keys.token
        digest = hashlib.sha256(body).hexdigest()
        found, _ = signer.headers(method, path, query, found, digest)
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request(method, target, body=body if sent is None else sent, headers=found)
        reply = connection.getresponse()
        return Answer(reply.status, reply.read(), dict(reply.getheaders()))
    finally:
        connection.close()


def ask(
    endpoint: str, keys: Keys | None, action: str, service: str = "iam", **parameters: str
) -> Answer:
    """An action by its name."""
    form = {"Action": action, "Version": VERSIONS[service], **parameters}
    return send(endpoint, encoded(form), keys, service=service)
