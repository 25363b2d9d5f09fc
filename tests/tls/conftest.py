"""One store on this machine whose S3 and admin port speak TLS, for all tests here."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from compose.local import Credentials, Up, running
from compose.s3_http import S3Http, Signer
from s3gw.pki import Authority
from tests import sdk

HEAD_SECONDS = 2
HOSTS = ("127.0.0.1", "localhost")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("port-pki") / "ca", "test", time.time())


@pytest.fixture(scope="session")
def files(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the certificate that the store shows."""
    directory = tmp_path_factory.mktemp("port-tls") / "server"
    authority.issue("server", HOSTS, directory, time.time())
    return directory


@pytest.fixture(scope="session")
def store(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    settings = {
        "S3GW_PROCESSES": "1",
        "S3GW_HEAD_SECONDS": str(HEAD_SECONDS),
        "S3GW_ACCESS_LOG_SECONDS": "0.5",
    }
    up = Up(
        tmp_path_factory.mktemp("port-tls-store") / "store",
        credentials=Credentials.generate(),
        environment=settings,
        tls=files,
    )
    with running(up):
        yield up


@pytest.fixture(scope="session")
def trust(files: Path) -> ssl.SSLContext:
    """What a client trusts that has been given the authority."""
    return ssl.create_default_context(cafile=str(files / "ca.pem"))


@pytest.fixture(scope="session")
def http(store: Up, trust: ssl.SSLContext) -> S3Http:
    signer = Signer(store.credentials.access_key, store.credentials.secret_key)
    return S3Http(store.endpoint, signer, trust)


@pytest.fixture(scope="session")
def s3(store: Up, files: Path) -> Any:
    return sdk.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=store.credentials.access_key,
        aws_secret_access_key=store.credentials.secret_key,
        verify=str(files / "ca.pem"),
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="session")
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="over-tls")
    return "over-tls"
