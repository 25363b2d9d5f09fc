"""Unmodified clients over TLS, and what is true of a request that came this way."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from compose.local import Up, s3gw, wait_until
from compose.s3_http import S3Http

CONTENT = os.urandom(9_000_000)
KEY = os.urandom(32)

Run = Callable[..., str]


@pytest.fixture
def run(store: Up, files: Path, tmp_path: Path) -> Run:
    """`run(*words, VARIABLE=…)` → what a command prints; it has root's keys and the authority."""

    def execute(*words: str, **environment: str) -> str:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "AWS_ACCESS_KEY_ID": store.credentials.access_key,
                "AWS_SECRET_ACCESS_KEY": store.credentials.secret_key,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": store.endpoint,
                **environment,
            },
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    return execute


def rclone_environment(store: Up) -> dict[str, str]:
    return {
        "RCLONE_CONFIG_S3GW_TYPE": "s3",
        "RCLONE_CONFIG_S3GW_PROVIDER": "Minio",
        "RCLONE_CONFIG_S3GW_ENDPOINT": store.endpoint,
        "RCLONE_CONFIG_S3GW_ENV_AUTH": "true",
    }


def test_boto3_in_one_piece_and_in_parts(s3: Any, bucket: str, tmp_path: Path) -> None:
    s3.put_object(Bucket=bucket, Key="whole", Body=CONTENT)
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    s3.upload_file(str(source), bucket, "parts")
    for key in ("whole", "parts"):
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == CONTENT
    reply = s3.get_object(Bucket=bucket, Key="whole", Range="bytes=70000-8000000")
    assert reply["Body"].read() == CONTENT[70000:8000001]


def test_aws_cli(run: Run, files: Path, s3: Any, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    trusted = {"AWS_CA_BUNDLE": str(files / "ca.pem")}
    run("aws", "s3", "cp", "source", f"s3://{bucket}/cli", **trusted)
    run("aws", "s3", "cp", f"s3://{bucket}/cli", "copy", **trusted)
    assert (tmp_path / "copy").read_bytes() == CONTENT
    url = run("aws", "s3", "presign", f"s3://{bucket}/cli", **trusted).strip()
    assert url.startswith("https://")


def test_rclone(run: Run, store: Up, files: Path, bucket: str, tmp_path: Path) -> None:
    environment = {**rclone_environment(store), "RCLONE_CA_CERT": str(files / "ca.pem")}
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "small").write_bytes(b"small")
    (tmp_path / "tree" / "large").write_bytes(CONTENT)
    run("rclone", "copy", "tree", f"s3gw:{bucket}/rclone", **environment)
    run("rclone", "copy", f"s3gw:{bucket}/rclone", "back", **environment)
    assert (tmp_path / "back" / "large").read_bytes() == CONTENT
    assert (tmp_path / "back" / "small").read_bytes() == b"small"


def test_curl_and_a_presigned_url(
    run: Run, files: Path, s3: Any, bucket: str, trust: ssl.SSLContext
) -> None:
    s3.put_object(Bucket=bucket, Key="curl", Body=b"for curl")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "curl"})
    assert url.startswith("https://")
    curl = ("curl", "-sS", "--fail", "--cacert", str(files / "ca.pem"))
    for version in ("1.2", "1.3"):
        assert run(*curl, "--tlsv" + version, "--tls-max", version, url) == "for curl"
    with urllib.request.urlopen(url, timeout=10, context=trust) as reply:
        assert reply.read() == b"for curl"


def test_a_client_that_does_not_know_the_authority_sends_nothing(store: Up) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(store.endpoint, timeout=10)


def test_customer_keys_are_taken(s3: Any, bucket: str) -> None:
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY}
    s3.put_object(Bucket=bucket, Key="sealed", Body=CONTENT, **key)
    assert s3.get_object(Bucket=bucket, Key="sealed", **key)["Body"].read() == CONTENT
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="sealed")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_rclone_with_a_customer_key(
    run: Run, store: Up, files: Path, s3: Any, bucket: str, tmp_path: Path
) -> None:
    text = KEY.hex()[:32]
    environment = {
        **rclone_environment(store),
        "RCLONE_CA_CERT": str(files / "ca.pem"),
        "RCLONE_S3_SSE_CUSTOMER_ALGORITHM": "AES256",
        "RCLONE_S3_SSE_CUSTOMER_KEY": text,
        "RCLONE_S3_SSE_CUSTOMER_KEY_MD5": b64encode(hashlib.md5(text.encode()).digest()).decode(),
    }
    (tmp_path / "source").write_bytes(CONTENT)
    run("rclone", "copyto", "source", f"s3gw:{bucket}/sealed-by-rclone", **environment)
    run("rclone", "copyto", f"s3gw:{bucket}/sealed-by-rclone", "copy", **environment)
    assert (tmp_path / "copy").read_bytes() == CONTENT
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": text}
    assert s3.head_object(Bucket=bucket, Key="sealed-by-rclone", **key)["ContentLength"]


def test_a_policy_that_demands_tls_is_content(s3: Any, bucket: str, http: S3Http) -> None:
    def statement(secure: str) -> str:
        return json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": "*",
                        "Action": "s3:GetObject",
                        "Resource": f"arn:aws:s3:::{bucket}/*",
                        "Condition": {"Bool": {"aws:SecureTransport": secure}},
                    }
                ],
            }
        )

    s3.put_object(Bucket=bucket, Key="public", Body=b"x")
    for secure, status in (("true", 200), ("false", 403)):
        s3.put_bucket_policy(Bucket=bucket, Policy=statement(secure))
        assert http.send("GET", f"/{bucket}/public").status == status
    s3.delete_bucket_policy(Bucket=bucket)


def test_answers_name_the_store_by_https(s3: Any, bucket: str) -> None:
    target = {"Bucket": bucket, "Key": "located"}
    upload = s3.create_multipart_upload(**target)["UploadId"]
    part = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    done = s3.complete_multipart_upload(**target, UploadId=upload, MultipartUpload=parts)
    assert done["Location"].startswith("https://")


def test_the_access_log_says_how_a_request_was_protected(
    s3: Any, bucket: str, http: S3Http
) -> None:
    """Fields 20 and 24, counted without the blank in the time and in quotes (the line of S3)."""
    s3.create_bucket(Bucket="tls-logs")
    s3.put_bucket_policy(
        Bucket="tls-logs",
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "logging.s3.amazonaws.com"},
                        "Action": "s3:PutObject",
                        "Resource": "arn:aws:s3:::tls-logs/*",
                    }
                ],
            }
        ),
    )
    target = {"LoggingEnabled": {"TargetBucket": "tls-logs", "TargetPrefix": "log/"}}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=target)
    assert http.request("HEAD", f"/{bucket}/nothing-here").status == 404
    lines: list[str] = []

    def delivered() -> bool:
        for entry in s3.list_objects_v2(Bucket="tls-logs").get("Contents", []):
            body = s3.get_object(Bucket="tls-logs", Key=entry["Key"])["Body"].read().decode()
            lines.extend(line for line in body.splitlines() if "nothing-here" in line)
        return bool(lines)

    wait_until(delivered, what="the access log", seconds_max=30)
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    rest = lines[0].rpartition('"')[2].split()
    signature, cipher, authentication, _, version = rest[2:7]
    assert (signature, authentication) == ("SigV4", "AuthHeader")
    assert cipher in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")
    assert version == "TLSv1.3"


def test_the_command_line_of_the_admin_port(store: Up, files: Path, run: Run) -> None:
    """With the authority in a flag or the environment; without it nothing is sent."""
    keys = {
        "S3GW_ROOT_ACCESS_KEY": store.credentials.access_key,
        "S3GW_ROOT_SECRET_KEY": store.credentials.secret_key,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ca, port = str(files / "ca.pem"), f"127.0.0.1:{store.admin_port}"
    summary = run(*s3gw("admin", "--ca", ca, "--endpoint", port, "--json", "summary"), **keys)
    assert json.loads(summary)["version"]
    named = {**keys, "S3GW_ADMIN_CA": ca, "S3GW_ADMIN": store.admin}
    assert json.loads(run(*s3gw("admin", "summary", "--json"), **named)) is not None
    for wrong in (
        ("--endpoint", store.admin),
        ("--endpoint", port),
        ("--ca", str(files / "key.pem")),
    ):
        done = subprocess.run(
            s3gw("admin", *wrong, "summary"),
            capture_output=True,
            text=True,
            env={**os.environ, **keys},
        )
        assert done.returncode == 2
        assert done.stderr.startswith("s3gw: ")
        assert done.stderr.count("\n") == 1


def test_the_lines_to_paste_are_for_https(store: Up) -> None:
    text = store.process.log.read_text()
    assert f"AWS_ENDPOINT_URL={store.endpoint}" in text
    assert f"RCLONE_CONFIG_S3GW_ENDPOINT={store.endpoint}" in text
    assert "AWS_CA_BUNDLE=ca.pem" in text
    assert "http://" not in text
