"""An aws-chunked body cut at every offset, over real HTTP: never accepted, never hanging."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from compose.local import Up
from compose.s3_http import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    S3Http,
    chunked_signed,
    chunked_unsigned,
)
from s3gw.wire.checksums import ALGORITHMS, encode
from tests.attacks.target import Baseline, ask, request_bytes

CONTENT = bytes(range(256)) * 34
CHUNKS = [CONTENT[:8192], CONTENT[8192:]]
CLIENTS = 4


def checksum() -> dict[str, str]:
    digest = ALGORITHMS["CRC32"].new()
    digest.update(CONTENT)
    return {"x-amz-checksum-crc32": encode(digest.digest())}


def built(http: S3Http, mode: str, path: str) -> tuple[dict[str, str], bytes]:
    """The signed headers and the framed body."""
    given = {"x-amz-decoded-content-length": str(len(CONTENT))}
    if mode != STREAMING_SIGNED:
        given["x-amz-trailer"] = "x-amz-checksum-crc32"
    headers, seed = http.signed_headers("PUT", path, "", given, mode)
    if mode == STREAMING_UNSIGNED_TRAILER:
        return headers, chunked_unsigned(CHUNKS, checksum())
    return headers, chunked_signed(CHUNKS, seed, None if mode == STREAMING_SIGNED else checksum())


def offsets(body: bytes) -> list[int]:
    """Every offset in the framing; within the payload, where nothing differs, a few."""
    first, second = body.index(CHUNKS[0]), body.index(CHUNKS[1])
    inside = {
        at
        for start, chunk in ((first, CHUNKS[0]), (second, CHUNKS[1]))
        for at in range(start + 2, start + len(chunk) - 2)
        if (at - start) % 997
    }
    return [at for at in range(len(body)) if at not in inside]


@pytest.mark.parametrize(
    "mode", [STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER]
)
@pytest.mark.parametrize("announced", ["the cut length", "the whole length"])
def test_a_cut_body_is_refused(
    mode: str, announced: str, store: Up, http: S3Http, s3: Any, bucket: str
) -> None:
    path = f"/{bucket}/cut"
    headers, body = built(http, mode, path)
    whole = ask(store.s3_port, request_bytes("PUT", path, headers, body))
    assert whole.status == 200, whole.data
    s3.delete_object(Bucket=bucket, Key="cut")
    before = Baseline.of(store.process, store.admin)

    def attempt(at: int) -> int:
        length = at if announced == "the cut length" else len(body)
        sent = request_bytes("PUT", path, {**headers, "content-length": str(length)}, body[:at])
        return ask(store.s3_port, sent).status

    with ThreadPoolExecutor(CLIENTS) as pool:
        cuts = offsets(body)
        for at, status in zip(cuts, pool.map(attempt, cuts), strict=True):
            # When the client has gone before the announced length, nobody reads an answer.
            assert status == 400 or (status == 0 and announced == "the whole length"), at
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    before.require_return(memory_growth_max=32 << 20)
