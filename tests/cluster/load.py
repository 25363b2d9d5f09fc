"""Load whose bodies describe themselves, and a verifier that knows every acknowledged operation.

A client owns its keys: between two acknowledged operations on a key there is at most one whose
outcome is unknown, so what may be found there is a set of at most two states. Each body is drawn
from (key, sequence, size), and can be checked without being kept.
"""

import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from compose.local import Credentials, wait_until
from tests import sdk

SIZES = (0, 1, 900, 40_000, 70_000, 300_000, 1_500_000)
KEYS_PER_CLIENT = 6
AFTER_FAILURE_SECONDS = 0.05
ABSENT = None

State = str | None
"""The SHA-256 of the object, or None for no object."""


def body_of(key: str, sequence: int, size: int) -> bytes:
    return random.Random(f"{key}/{sequence}").randbytes(size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def client(endpoint: str, credentials: Credentials, *, attempts: int = 1) -> Any:
    return sdk.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        config=Config(
            retries={"total_max_attempts": attempts},
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=4,
        ),
    )


@dataclass
class Load:
    """Several clients at once, until `stop`. `failures_allowed` names what may be refused."""

    endpoints: Sequence[str]
    credentials: Credentials
    bucket: str
    seed: int
    clients: int = 3
    name: str = "load"
    reads_may_fail: bool = True
    writes_may_fail: bool = True
    acknowledged: int = 0
    reads: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    possible: dict[str, set[State]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> "Load":
        for number in range(self.clients):
            thread = threading.Thread(target=self._run, args=(number,))
            self._threads.append(thread)
            thread.start()
        return self

    def stop(self) -> None:
        """End the load; every thread has come to its end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.wrong, self.wrong[:5]

    def progress(self, *, writes: int = 0, reads: int = 0) -> None:
        """Wait until so many more writes were acknowledged and reads answered."""
        writes, reads = self.acknowledged + writes, self.reads + reads
        wait_until(
            lambda: bool(self.wrong) or (self.acknowledged >= writes and self.reads >= reads),
            what="progress of the load",
        )

    def _run(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        s3 = [client(endpoint, self.credentials) for endpoint in self.endpoints]
        keys = [f"{self.name}/client-{number}/key-{each}" for each in range(KEYS_PER_CLIENT)]
        sequence = 0
        while not self._stop.is_set():
            sequence += 1
            self._step(chance, chance.choice(s3), chance.choice(keys), sequence)

    def _step(self, chance: random.Random, s3: Any, key: str, sequence: int) -> None:
        kind = chance.choice(("put", "put", "put", "multipart", "get", "get", "delete", "list"))
        if kind == "get":
            self._try("get", False, lambda: self._get(s3, key))
        elif kind == "list":
            self._try("list", False, lambda: self._list(s3, key))
        elif kind == "delete":
            self._write(key, ABSENT, lambda: s3.delete_object(Bucket=self.bucket, Key=key))
        else:
            data = body_of(key, sequence, chance.choice(SIZES))
            put = self._multipart if kind == "multipart" else self._put
            self._write(key, digest(data), lambda: put(s3, key, data))

    def _write(self, key: str, state: State, write: Callable[[], object]) -> None:
        before = self.possible.get(key, {ABSENT})
        self.possible[key] = before | {state}
        if self._try("write", True, write):
            self.possible[key] = {state}
            self.acknowledged += 1

    def _try(self, what: str, writes: bool, call: Callable[[], object]) -> bool:
        try:
            call()
        except (HTTPClientError, BotoCoreError, ClientError) as error:
            status = 0
            if isinstance(error, ClientError):
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status in (500, 501) or 400 <= status < 500:
                self.wrong.append(f"{what}: {error!r}")
            allowed = self.writes_may_fail if writes else self.reads_may_fail
            (self.failed if allowed else self.wrong).append(f"{what}: {error!r}")
            self._stop.wait(AFTER_FAILURE_SECONDS)
            return False
        return True

    def _put(self, s3: Any, key: str, data: bytes) -> None:
        s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def _multipart(self, s3: Any, key: str, data: bytes) -> None:
        target = {"Bucket": self.bucket, "Key": key}
        target["UploadId"] = s3.create_multipart_upload(**target)["UploadId"]
        part = s3.upload_part(**target, PartNumber=1, Body=data)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        s3.complete_multipart_upload(**target, MultipartUpload=parts)

    def _get(self, s3: Any, key: str) -> None:
        found = read(s3, self.bucket, key)
        self.reads += 1
        if found not in self.possible.get(key, {ABSENT}):
            self.wrong.append(f"{key} is {found}, not one of {self.possible.get(key)}")

    def _list(self, s3: Any, key: str) -> None:
        prefix = key.rpartition("/")[0] + "/"
        listed = {each["Key"] for each in list_keys(s3, self.bucket, prefix)}
        self._require_listed(listed, prefix)

    def _require_listed(self, listed: set[str], prefix: str) -> None:
        for key, states in list(self.possible.items()):
            if key.startswith(prefix):
                if ABSENT not in states and key not in listed:
                    self.wrong.append(f"{key} is not listed")
                if states == {ABSENT} and key in listed:
                    self.wrong.append(f"{key} is listed")

    def verify(self, s3: Any) -> None:
        """What was acknowledged is there, byte for byte; nothing is torn; the listing agrees."""
        entries = {each["Key"]: each for each in list_keys(s3, self.bucket, f"{self.name}/")}
        for key, states in self.possible.items():
            found = read(s3, self.bucket, key)
            assert found in states, f"{key} is {found}, not one of {states}"
            assert (key in entries) == (found is not ABSENT), key
        assert set(entries) <= set(self.possible)


def read(s3: Any, bucket: str, key: str) -> State:
    """The digest of an object, or None; an incomplete body is an error of botocore."""
    try:
        return digest(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except s3.exceptions.NoSuchKey:
        return ABSENT


def list_keys(s3: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry for page in pages for entry in page.get("Contents", [])]
