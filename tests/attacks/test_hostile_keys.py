"""Keys that a file system, a URL parser or XML would not keep: they round-trip exactly or are 400,
and nothing appears outside the data directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compose.local import Up
from compose.s3_http import S3Http, quote_key

KEYS = {
    "dot dot": "..",
    "dot": ".",
    "traversal": "../../../../../../tmp/escaped",
    "traversal within": "a/../../b",
    "ends in dot dot": "a/..",
    "slash": "/",
    "absolute": "/etc/passwd",
    "double slash": "a//b",
    "trailing slash": "a/",
    "backslash": "..\\..\\escaped",
    "an escape as text": "%2e%2e%2f",
    "a double escape": "%252e",
    "a percent sign": "100%",
    "spaces": "  a  b ",
    "plus": "a+b",
    "semicolon": "a;b=c",
    "question mark": "a?acl&b#c",
    "ampersand and angle": "a&b<c>\"'",
    "newline": "a\nb",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "control": "\x01\x1f\x7f",
    "U+FFFF": "a\uffffb",
    "U+FFFE": "\ufffe",
    "emoji": "😀/👩‍👩‍👧",
    "right to left": "\u202egnp.exe",
    "decomposed": "e\u0301",
    "composed": "\u00e9",
    "1,024 bytes": "k" * 1024,
    "1,024 bytes of emoji": "😀" * 256,
    "sidecar": ".s3gw/identity",
    "looks like a query": "k?uploadId=x",
    "NUL escaped as text": "%00",
    "the name of a metadata key": "store",
}
REFUSED = {
    "1,025 bytes": "k" * 1025,
    "1,025 bytes of text": "é" * 512 + "k",
    "NUL": b"a%00b",
    "not UTF-8": b"a%ffb",
    "overlong slash": b"a%c0%afb",
    "a surrogate": b"%ed%a0%80",
    "a broken escape": b"a%zz",
    "half an escape": b"a%2",
}


@pytest.fixture(scope="module", autouse=True)
def _nothing_outside(store: Up) -> Iterator[None]:
    """Beside the data directory there is the log, before and after."""
    before = sorted(path.name for path in store.directory.parent.iterdir())
    top = sorted(path.name for path in store.directory.iterdir())
    yield
    assert sorted(path.name for path in store.directory.parent.iterdir()) == before
    assert sorted(path.name for path in store.directory.iterdir()) == top
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize("name", KEYS)
def test_a_hard_key_round_trips(name: str, http: S3Http, bucket: str) -> None:
    key = KEYS[name]
    path = f"/{bucket}/{quote_key(key)}"
    body = f"content of {name}".encode()
    assert http.request("PUT", path, body=body).status == 200
    assert http.request("GET", path).body == body
    prefix = quote_key(key).replace("/", "%2F")
    query = f"encoding-type=url&list-type=2&prefix={prefix}"
    listed = http.request("GET", f"/{bucket}", query)
    assert listed.status == 200
    assert http.request("DELETE", path).status == 204
    assert http.request("GET", path).status == 404


def test_hard_keys_are_different_objects(http: S3Http, s3: Any, bucket: str) -> None:
    for name, key in KEYS.items():
        path = f"/{bucket}/{quote_key(key)}"
        assert http.request("PUT", path, body=name.encode()).status == 200
    for name, key in KEYS.items():
        assert http.request("GET", f"/{bucket}/{quote_key(key)}").body == name.encode()
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert sorted(each["Key"] for each in listed) == sorted(KEYS.values())


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_is_no_key_is_400(name: str, method: str, http: S3Http, bucket: str) -> None:
    key = REFUSED[name]
    raw = quote_key(key) if isinstance(key, str) else key.decode()
    assert http.request(method, f"/{bucket}/{raw}").status == 400


def test_a_decoded_slash_does_not_change_the_bucket(http: S3Http, bucket: str) -> None:
    assert http.request("PUT", f"/{bucket}%2Fescaped", body=b"x").status == 400
    assert http.request("PUT", f"/{bucket}/..%2Fescaped", body=b"x").status == 200
    assert http.request("GET", f"/{bucket}/../escaped").body == b"x"


@pytest.mark.parametrize(
    "source", ["/attacked/..%2F..%2Fetc/passwd", "%2e%2e/k", "", "/", "attacked", "a%00b/c", "é"]
)
def test_odd_copy_sources_are_refused(source: str, http: S3Http, bucket: str) -> None:
    reply = http.request("PUT", f"/{bucket}/copy", headers={"x-amz-copy-source": source})
    assert reply.status in (400, 403, 404), reply.body
    assert http.request("HEAD", f"/{bucket}/copy").status == 404
