"""R21: clients that go away at a random byte of an upload or a download leave nothing behind."""

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compose.local import Up, running, wait_until
from compose.s3_http import S3Http, Signer
from tests.attacks.target import SOAK, Baseline, Raw, request_bytes
from tests.cluster.load import client, list_keys

SEED = int(os.environ.get("CRASH_SEED", "20260104"))
DEPARTURES = 1000 if SOAK else 120
CLIENTS = 4
LARGE_BYTES = 3 << 20
BUCKET = "left"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    directory = tmp_path_factory.mktemp("left") / "store"
    up = Up(directory, environment={"S3GW_PROCESSES": "1"})
    with running(up):
        client(up.endpoint, up.credentials).create_bucket(Bucket=BUCKET)
        yield up


@pytest.fixture(scope="module")
def http(store: Up) -> S3Http:
    credentials = store.credentials
    return S3Http(store.endpoint, Signer(credentials.access_key, credentials.secret_key))


def files_on_drives(store: Up) -> set[Path]:
    """Shards and temporary files, without the journal, which background work writes too."""
    return {
        path
        for drive in store.directory.glob("drive-*")
        for path in drive.rglob("*")
        if path.is_file() and "journal" not in path.parts
    }


def test_cut_uploads_leave_no_object_no_file_and_no_descriptor(store: Up, http: S3Http) -> None:
    assert http.request("PUT", f"/{BUCKET}/warm", body=bytes(LARGE_BYTES)).status == 200
    files = files_on_drives(store)
    before = Baseline.of(store.process, store.admin)
    upload_id = http.request("POST", f"/{BUCKET}/parts", "uploads=").body
    upload_id = upload_id.partition(b"<UploadId>")[2].partition(b"<")[0]
    part = f"partNumber=1&uploadId={upload_id.decode()}"

    def leave(number: int) -> None:
        chance = random.Random(f"{SEED}/{number}")
        query = part if number % 3 == 0 else ""
        path = f"/{BUCKET}/{'parts' if query else f'cut-{number}'}"
        headers, _ = http.signed_headers("PUT", path, query)
        size = chance.choice((1, 100, 60_000, 200_000, LARGE_BYTES))
        target = f"{path}?{query}" if query else path
        data = request_bytes("PUT", target, headers, chance.randbytes(size))
        with Raw(store.s3_port) as raw:
            # At least one byte of the body never comes.
            raw.send(data[: chance.randrange(len(data))])

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(leave, range(DEPARTURES)))
    before.require_return(memory_growth_max=128 << 20)
    wait_until(lambda: files_on_drives(store) <= files, what="no file left", seconds_max=10)
    s3 = client(store.endpoint, store.credentials)
    assert [each["Key"] for each in list_keys(s3, BUCKET, "cut-")] == []
    parts = s3.list_parts(Bucket=BUCKET, Key="parts", UploadId=upload_id.decode())
    assert "Parts" not in parts


def test_cut_downloads_leave_no_descriptor(store: Up, http: S3Http) -> None:
    assert http.request("PUT", f"/{BUCKET}/large", body=bytes(LARGE_BYTES)).status == 200
    before = Baseline.of(store.process, store.admin)

    def leave(number: int) -> None:
        chance = random.Random(f"{SEED}/{number}")
        headers, _ = http.signed_headers("GET", f"/{BUCKET}/large")
        with Raw(store.s3_port, receive_buffer=8192) as raw:
            raw.send(request_bytes("GET", f"/{BUCKET}/large", headers))
            wanted = chance.randrange(LARGE_BYTES)
            while wanted > 0:
                wanted -= len(raw.socket.recv(min(wanted, 65536)))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(leave, range(DEPARTURES)))
    before.require_return(memory_growth_max=128 << 20)
    assert len(http.request("GET", f"/{BUCKET}/large").body) == LARGE_BYTES
