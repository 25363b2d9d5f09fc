"""Large uploads that are refused before their body is read: every client sees the 403, and nothing
stays behind."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from compose.local import Up
from compose.s3_http import S3Http, Signer
from tests import sdk
from tests.attacks.target import SOAK, Baseline, Raw, request_bytes

UPLOADS = 1000 if SOAK else 60
BODY_BYTES = 64 << 20
PIECE = bytes(1 << 20)
CLIENTS = 8
MEMORY_GROWTH_MAX = 64 << 20
WRONG = "a wrong secret key of usual length 012345"


def refused_head(store: Up, http: S3Http, bucket: str) -> bytes:
    signer = Signer(http.signer.access_key, WRONG)
    headers, _ = S3Http(store.endpoint, signer).signed_headers("PUT", f"/{bucket}/large")
    return request_bytes("PUT", f"/{bucket}/large", {**headers, "content-length": str(BODY_BYTES)})


def test_refused_uploads_leave_nothing_behind(store: Up, http: S3Http, bucket: str) -> None:
    head = refused_head(store, http, bucket)

    def upload(number: int) -> bytes:
        """Send the body until the server has had enough of it."""
        with Raw(store.s3_port) as raw:
            raw.send(head)
            sent = 0
            while sent < BODY_BYTES and raw.send(PIECE):
                sent += len(PIECE)
            return raw.rest()

    upload(0)
    before = Baseline.of(store.process, store.admin)
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(upload, range(UPLOADS)))
    # Who reads only at the end may find a reset instead of the answer, as with any server.
    seen = [answer for answer in answers if answer]
    assert seen
    assert all(answer.startswith(b"HTTP/1.1 403 ") for answer in seen)
    before.require_return(memory_growth_max=MEMORY_GROWTH_MAX)


def test_clients_that_never_send_the_body_are_closed(store: Up, http: S3Http, bucket: str) -> None:
    head = refused_head(store, http, bucket)
    before = Baseline.of(store.process, store.admin)
    connections = [Raw(store.s3_port) for _ in range(UPLOADS)]
    for raw in connections:
        raw.send(head)
        raw.socket.settimeout(15)
    for raw in connections:
        assert raw.rest().startswith(b"HTTP/1.1 403 ")
        raw.socket.close()
    before.require_return(memory_growth_max=MEMORY_GROWTH_MAX)


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "large"
    with path.open("wb") as file:
        file.truncate(BODY_BYTES)
    return path


def test_boto3_sees_the_refusal(store: Up, bucket: str, large_file: Path) -> None:
    client: Any = sdk.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=store.credentials.access_key,
        aws_secret_access_key=WRONG,
        config=Config(retries={"total_max_attempts": 1}),
    )
    for _ in range(3):
        with large_file.open("rb") as body, pytest.raises(ClientError) as caught:
            client.put_object(Bucket=bucket, Key="large", Body=body)
        assert caught.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


def test_aws_cli_sees_the_refusal(store: Up, bucket: str, large_file: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ACCESS_KEY_ID": store.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": WRONG,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    aws = Path(sys.executable).with_name("aws")
    ended = subprocess.run(
        [
            *(sys.executable, aws, "--endpoint-url", store.endpoint, "s3api", "put-object"),
            *("--bucket", bucket, "--key", "large", "--body", large_file),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert "SignatureDoesNotMatch" in ended.stderr


def test_rclone_sees_the_refusal(store: Up, bucket: str, large_file: Path) -> None:
    rclone = shutil.which("rclone")
    assert rclone, "rclone is missing: compose/packages rclone"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(large_file.parent),
        "RCLONE_CONFIG_S_TYPE": "s3",
        "RCLONE_CONFIG_S_PROVIDER": "Other",
        "RCLONE_CONFIG_S_ENDPOINT": store.endpoint,
        "RCLONE_CONFIG_S_ACCESS_KEY_ID": store.credentials.access_key,
        "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": WRONG,
        "RCLONE_CONFIG_S_NO_CHECK_BUCKET": "true",
        "RCLONE_CONFIG_S_UPLOAD_CUTOFF": "1Gi",
    }
    ended = subprocess.run(
        [rclone, "--retries=1", "--low-level-retries=1", "copyto", large_file, f"s:{bucket}/large"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert "403" in ended.stderr or "SignatureDoesNotMatch" in ended.stderr
