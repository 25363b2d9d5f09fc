"""A real store that is started again with its master key, without it, and with another one; and
what of its keys can be found in its files."""

from __future__ import annotations

import os
import secrets
import stat
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from compose.local import Cluster, Gateway, StartError, Up, running, wait_until
from s3gw.admin.client import AdminClient
from s3gw.key_sources import MASTER_KEY_FILE
from s3gw.objects.keyring.master import parse
from tests import sdk

CUSTOMER = secrets.token_bytes(32)
SECRET_BODY = b"a body that nobody may find on a drive"


def client_of(store: Up | Cluster, endpoint: str = "") -> Any:
    return sdk.client(
        "s3",
        endpoint_url=endpoint or store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=store.credentials.access_key,
        aws_secret_access_key=store.credentials.secret_key,
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


def test_a_gateway_without_the_master_key_of_the_cluster_does_not_start(tmp_path: Path) -> None:
    key = b64encode(os.urandom(32)).decode()
    cluster = Cluster(
        tmp_path / "store",
        nodes=6,
        gateways=2,
        environment={
            "S3GW_MASTER_KEY": key,
            "S3GW_PROCESSES": "1",
            "S3GW_WORKER_INTERVAL_SECONDS": "0.2",
        },
    )
    with running(cluster):
        first, second = cluster.gateways
        [s3, other] = [client_of(cluster, gateway.endpoint) for gateway in (first, second)]
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k", Body=SECRET_BODY, ServerSideEncryption="AES256")
        assert other.get_object(Bucket="bucket", Key="k")["Body"].read() == SECRET_BODY
        second.process.stop()
        changed = dict(second.process.environment)
        for told in (b64encode(os.urandom(32)).decode(), ""):
            second.process.environment = {**changed, "S3GW_MASTER_KEY": told}
            second.process.start()
            assert second.process.wait() == 2
            assert second.process.said("is not among those configured")
        assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == SECRET_BODY
        second.process.environment = changed
        second.process.start()
        cluster.wait_gateway(second)
        assert other.get_object(Bucket="bucket", Key="k")["Body"].read() == SECRET_BODY
        rotate(cluster, key)


def rotate(cluster: Cluster, key: str) -> None:
    """Give a cluster another master key, as the operations manual says."""
    first, second = cluster.gateways
    s3 = client_of(cluster)
    s3.put_object(Bucket="bucket", Key="n", Body=SECRET_BODY, ServerSideEncryption="aws:kms")
    new = b64encode(os.urandom(32)).decode()
    old_id, new_id = (parse(each).present.hex() for each in (key, new))

    def restart(gateway: Gateway, *keys: str) -> None:
        gateway.process.stop()
        told = {**gateway.process.environment, "S3GW_MASTER_KEY": ",".join(keys)}
        gateway.process.environment = told
        gateway.process.start()
        cluster.wait_gateway(gateway)

    def status(gateway: Gateway) -> Any:
        return admin_of(cluster, gateway).call("GET", "/admin/kms/master-keys")

    restart(second, new, key)
    admin_of(cluster, second).call("POST", "/admin/kms/rewrap")
    answer = status(second)
    [behind] = [process for process in answer["processes"] if process["behind"]]
    assert (behind["present"], answer["present"]) == (old_id, new_id)
    assert behind["name"].endswith(str(first_worker(first)))
    assert (answer["rewrap"]["state"], answer["removable"]) == ("walking", [])
    restart(first, new, key)
    wait_until(lambda: status(first)["rewrap"]["state"] == "done", what="wrapping anew")
    answer = status(first)
    assert (answer["removable"], answer["in_use"]) == ([old_id], [new_id])
    restart(second, new)
    for name in ("k", "n"):
        found = client_of(cluster, second.endpoint).get_object(Bucket="bucket", Key=name)
        assert found["Body"].read() == SECRET_BODY


def admin_of(cluster: Cluster, gateway: Gateway) -> AdminClient:
    keys = cluster.credentials
    address = gateway.admin.removeprefix("http://")
    return AdminClient(address, keys.access_key, keys.secret_key, "us-east-1")


def first_worker(gateway: Gateway) -> int:
    """The id of the one process that serves, below the supervisor."""
    pid = gateway.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid
