"""A real store that is started again with its master key, without it, and with another one; and
what of its keys can be found in its files."""

from __future__ import annotations

import os
import secrets
import stat
from base64 import b64encode
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from compose.local import StartError, Up
from s3gw.key_sources import MASTER_KEY_FILE

CUSTOMER = secrets.token_bytes(32)
SECRET_BODY = b"a body that nobody may find on a drive"


def client_of(up: Up) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=up.endpoint,
        region_name="us-east-1",
        aws_access_key_id=up.credentials.access_key,
        aws_secret_access_key=up.credentials.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def up(tmp_path: Path) -> Any:
    environment = {"S3GW_ALLOW_SSEC_OVER_HTTP": "true", "S3GW_LOG_LEVEL": "debug"}
    made = Up(tmp_path / "store", environment={**environment, "S3GW_PROCESSES": "1"})
    yield made
    made.stop()


def refusal(up: Up) -> str:
    """What a start that is refused says."""
    with pytest.raises(StartError):
        up.start()
    lines = up.process.log.read_text().splitlines()
    return [line for line in lines if line.startswith("s3gw:")][-1]


def test_a_store_is_not_started_without_the_master_key_of_its_objects(up: Up) -> None:
    up.start()
    kept = up.directory / MASTER_KEY_FILE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    s3 = client_of(up)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=SECRET_BODY, ServerSideEncryption="AES256")
    s3.put_object(Bucket="bucket", Key="n", Body=SECRET_BODY, ServerSideEncryption="aws:kms")
    assert up.stop() == 0

    key = kept.read_bytes()
    kept.unlink()
    assert "is not among those configured" in refusal(up)
    assert not kept.exists()

    kept.write_bytes(b64encode(os.urandom(32)))
    kept.chmod(0o600)
    assert "is not among those configured" in refusal(up)

    kept.write_bytes(b64encode(os.urandom(32)) + b"\n" + key)
    kept.chmod(0o644)
    assert "chmod 600" in refusal(up)

    kept.chmod(0o600)
    up.start()
    for name in ("k", "n"):
        assert client_of(up).get_object(Bucket="bucket", Key=name)["Body"].read() == SECRET_BODY


def test_a_master_key_that_nothing_is_under_may_go(up: Up) -> None:
    up.start()
    kept = up.directory / MASTER_KEY_FILE
    before = kept.read_bytes()
    assert up.stop() == 0
    kept.unlink()
    up.start()
    assert kept.read_bytes() != before


def test_no_key_and_no_body_is_in_a_log_or_on_a_drive(up: Up) -> None:
    up.start()
    s3 = client_of(up)
    s3.create_bucket(Bucket="bucket")
    own = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": CUSTOMER}
    wrong = {**own, "SSECustomerKey": secrets.token_bytes(32)}
    s3.put_object(Bucket="bucket", Key="own", Body=SECRET_BODY, **own)
    s3.put_object(Bucket="bucket", Key="k", Body=SECRET_BODY, ServerSideEncryption="AES256")
    assert s3.get_object(Bucket="bucket", Key="own", **own)["Body"].read() == SECRET_BODY
    for asked in (wrong, {}):
        with pytest.raises(s3.exceptions.ClientError):
            s3.get_object(Bucket="bucket", Key="own", **asked)
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "own", **own})
    assert b64encode(CUSTOMER).decode() not in url
    kept = up.directory / MASTER_KEY_FILE
    master = kept.read_bytes().strip()
    assert up.stop() == 0
    files = [path for path in up.directory.rglob("*") if path.is_file() and path != kept]
    found = [path.read_bytes() for path in (*files, up.process.log)]
    assert len(found) > 10
    for secret in (CUSTOMER, b64encode(CUSTOMER), master, SECRET_BODY):
        assert not any(secret in data for data in found)


def test_a_customers_key_in_the_clear_is_refused_unless_a_setting_allows_it(
    tmp_path: Path,
) -> None:
    up = Up(tmp_path / "store", environment={"S3GW_PROCESSES": "1"})
    up.start()
    try:
        s3 = client_of(up)
        s3.create_bucket(Bucket="bucket")
        with pytest.raises(s3.exceptions.ClientError) as caught:
            s3.put_object(
                Bucket="bucket",
                Key="k",
                Body=b"x",
                SSECustomerAlgorithm="AES256",
                SSECustomerKey=CUSTOMER,
            )
        assert caught.value.response["Error"]["Code"] == "InvalidRequest"
        assert "secure connection" in caught.value.response["Error"]["Message"]
    finally:
        up.stop()
