"""Real clients, as their users run them: configured by environment and flags, no special settings.

Each test checks content by hash; an exit code alone proves nothing.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1024 * 1024
SOAK = "SOAK" in os.environ
BIG_BYTES = 1024 * MIB if SOAK else 64 * MIB
TIMEOUT_SECONDS = 3600 if SOAK else 240

NAMES = {
    "empty": 0,
    "one byte": 1,
    "docs/4k.bin": 4096,
    "docs/ünïcode & more.txt": 70_000,
    "docs/deep/er/file+plus.bin": MIB + 1,
    "multipart.bin": 17 * MIB + 3,
}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def digests():
    """`digests(directory)` → {relative path: SHA-256} of every file below it."""

    def read(directory: Path):
        files = (path for path in directory.rglob("*") if path.is_file())
        return {str(path.relative_to(directory)): digest(path) for path in files}

    return read


@pytest.fixture
def stored(s3, bucket):
    """`stored(prefix)` → {key without the prefix: SHA-256}, read from the store with boto3."""

    def read(prefix=""):
        found = {}
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                body = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"]
                sha = hashlib.sha256()
                for chunk in body.iter_chunks(MIB):
                    sha.update(chunk)
                found[entry["Key"].removeprefix(prefix)] = sha.hexdigest()
        return found

    return read


@pytest.fixture
def tree(tmp_path):
    """A local directory with files of all sizes and awkward names."""
    directory = tmp_path / "tree"
    dice = random.Random(7)
    for name, size in NAMES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(size))
    return directory


@pytest.fixture
def big(tmp_path):
    """A file that every client sends in parts: 64 MiB, in a soak 1 GiB."""
    path = tmp_path / "big.bin"
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(BIG_BYTES // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    return path


@pytest.fixture
def run(tmp_path):
    """`run(argv, environment)` → standard output; the client's own words when it fails."""

    def execute(argv, environment):
        done = subprocess.run(
            [str(word) for word in argv],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
            | environment,
        )
        assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    return execute


@pytest.fixture
def library(server, run):
    """`library(script, bucket)` → what a script beside this file prints, run with the libraries of
    requirements-clients.lock (`make install-clients`)."""
    environment = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    python = Path(sys.prefix) / "clients/bin/python"
    scripts = Path(__file__).parent
    return lambda script, *words: run([python, scripts / script, *words], environment)


@pytest.fixture
def mounted():
    """`with mounted(process, place): …` — a FUSE process, from its mount to its end."""

    @contextmanager
    def hold(process, place):
        binary = shutil.which("fusermount3") or shutil.which("fusermount")
        assert binary is not None
        process.start()
        try:
            process.wait_ready(lambda: os.path.ismount(place))
            yield
        finally:
            if os.path.ismount(place):
                subprocess.run([binary, "-u", str(place)], check=True)
            process.stop()

    return hold
