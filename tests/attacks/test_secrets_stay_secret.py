"""Neither secrets nor signatures appear in logs, tracebacks, metrics or answers, at debug level."""

import re
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from compose.local import Up
from compose.s3_http import S3Http, Signer
from tests.attacks.target import ask, request_bytes, workers
from tests.compat.forms import Poster

SETTINGS = {"S3GW_LOG_LEVEL": "debug"}
SIGNATURE = re.compile(r"Signature=([0-9a-f]{64})")


@pytest.fixture
def used(store: Up, http: S3Http, s3: Any, bucket: str) -> list[str]:
    """What must not be found, after requests of many kinds have carried it."""
    found = [store.credentials.secret_key]

    def send(method: str, path: str, headers: dict[str, str], query: str = "") -> None:
        http.send(method, path, query, headers=headers, body=b"")
        for text in (headers.get("authorization", ""), query):
            found.extend(SIGNATURE.findall(text))

    for method, path in (("PUT", "/k"), ("GET", "/k"), ("GET", "/missing"), ("DELETE", "/k")):
        headers, _ = http.signed_headers(method, f"/{bucket}{path}")
        send(method, f"/{bucket}{path}", headers)
        host = {"host": http.netloc}
        query = http.signer.presigned(method, f"/{bucket}{path}", "", host, expires_seconds=60)
        send(method, f"/{bucket}{path}", host, query)
    # Refused before, at and after the signature.
    headers, _ = http.signed_headers("GET", f"/{bucket}/k")
    send("GET", f"/{bucket}/other", headers)
    send("GET", f"/{bucket}/%zz", headers)
    send("GET", f"/{bucket}/k", {**headers, "range": "bytes=1-"})
    ask(store.s3_port, request_bytes("GET", f"/{bucket}/k", {**headers, "x": "\x01"}))
    ask(store.s3_port, request_bytes("PUT", f"/{bucket}/k", {**headers, "content-length": "9"}))
    for operation in ("get_object", "put_object"):
        url = s3.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": "k"})
        parts = urlsplit(url)
        method = "GET" if operation == "get_object" else "PUT"
        http.send(method, parts.path, parts.query)
        value = parts.query.partition("&Signature=")[2].partition("&")[0]
        found += [value, unquote(value)]
    for version, name in ((4, "x-amz-signature"), (2, "signature")):
        poster = Poster(http, bucket)
        fields = poster.signed({"key": "k"}, [{"key": "k"}], version=version)
        for sent in (fields, {**fields, "acl": "x"}, {**fields, "policy": "x" + fields["policy"]}):
            poster.send(sent)
        found += [fields[name], fields["policy"]]
    # A client's own secret in the wrong place.
    signer = Signer("wJalrXUtnFEMI/K7MDENG", "secret-of-a-stranger")
    strange, _ = S3Http(store.endpoint, signer).signed_headers("GET", f"/{bucket}/k")
    send("GET", f"/{bucket}/k", strange)
    return [each for each in found if each]


def test_logs_and_metrics_hold_no_secret(store: Up, used: list[str]) -> None:
    log = store.process.log.read_text(errors="replace")
    with urllib.request.urlopen(store.admin + "/metrics") as reply:
        metrics = reply.read().decode()
    assert len(used) > 10
    for secret in used:
        assert secret not in log
        assert secret not in metrics
    assert "GetObject" in log, "the access log is written at this level"


def test_an_answer_holds_no_secret(store: Up, http: S3Http, bucket: str) -> None:
    signer = Signer(http.signer.access_key, "another secret key")
    reply = S3Http(store.endpoint, signer).request("GET", f"/{bucket}/k")
    assert reply.code == "SignatureDoesNotMatch"
    assert http.signer.secret_key.encode() not in reply.body
    expected, _ = http.signed_headers("GET", f"/{bucket}/k")
    good = SIGNATURE.findall(expected["authorization"])[0]
    assert good.encode() not in reply.body


def test_the_command_line_of_processes_holds_no_secret(store: Up) -> None:
    for pid in [store.process.pid, *workers(store.process)]:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            assert store.credentials.secret_key.encode() not in file.read()
