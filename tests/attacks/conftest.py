"""Each file attacks a store of its own: a real process, one worker, short deadlines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from compose.local import Credentials, Up, running
from compose.s3_http import S3Http, Signer
from tests import sdk

HEAD_SECONDS = 2
IDLE_SECONDS = 3


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    directory: Path = tmp_path_factory.mktemp("attacks") / "store"
    settings = {
        "S3GW_PROCESSES": "1",
        "S3GW_HEAD_SECONDS": str(HEAD_SECONDS),
        "S3GW_IDLE_SECONDS": str(IDLE_SECONDS),
        **getattr(request.module, "SETTINGS", {}),
    }
    up = Up(directory, credentials=Credentials.generate(), environment=settings)
    with running(up):
        yield up


@pytest.fixture(scope="module")
def http(store: Up) -> S3Http:
    signer = Signer(store.credentials.access_key, store.credentials.secret_key)
    return S3Http(store.endpoint, signer)


@pytest.fixture(scope="module")
def s3(store: Up) -> Any:
    return sdk.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=store.credentials.access_key,
        aws_secret_access_key=store.credentials.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="attacked")
    return "attacked"
