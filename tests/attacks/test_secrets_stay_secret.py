"""Neither secrets nor signatures appear in logs, tracebacks, metrics or answers, at debug level."""

import hashlib
import os
import re
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from compose.local import Up, wait_until
from compose.s3_http import S3Http, Signer
from s3gw.admin.client import AdminClient
from tests import sdk
from tests.attacks.target import ask, request_bytes, workers
from tests.compat.forms import Poster

MASTER_KEY = os.urandom(32)
CUSTOMER_KEY = os.urandom(32)
SETTINGS = {
    "S3GW_LOG_LEVEL": "debug",
    "S3GW_ALLOW_SSEC_OVER_HTTP": "true",
    "S3GW_MASTER_KEY": b64encode(MASTER_KEY).decode(),
}
SIGNATURE = re.compile(r"Signature=([0-9a-f]{64})")


@pytest.fixture
def used(store: Up, http: S3Http, s3: Any, bucket: str) -> list[str]:
    """What must not be found, after requests of many kinds have carried it."""
    found = [store.credentials.secret_key]

    def send(method: str, path: str, headers: dict[str, str], query: str = "") -> None:
        http.send(method, path, query, headers=headers, body=b"")
        for text in (headers.get("authorization", ""), query):
            found.extend(SIGNATURE.findall(text))

    for method, path in (("PUT", "/k"), ("GET", "/k"), ("GET", "/missing"), ("DELETE", "/k")):
        headers, _ = http.signed_headers(method, f"/{bucket}{path}")
        send(method, f"/{bucket}{path}", headers)
        host = {"host": http.netloc}
        query = http.signer.presigned(method, f"/{bucket}{path}", "", host, expires_seconds=60)
        send(method, f"/{bucket}{path}", host, query)
    # Refused before, at and after the signature.
    headers, _ = http.signed_headers("GET", f"/{bucket}/k")
    send("GET", f"/{bucket}/other", headers)
    send("GET", f"/{bucket}/%zz", headers)
    send("GET", f"/{bucket}/k", {**headers, "range": "bytes=1-"})
    ask(store.s3_port, request_bytes("GET", f"/{bucket}/k", {**headers, "x": "\x01"}))
    ask(store.s3_port, request_bytes("PUT", f"/{bucket}/k", {**headers, "content-length": "9"}))
    for operation in ("get_object", "put_object"):
        url = s3.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": "k"})
        parts = urlsplit(url)
        method = "GET" if operation == "get_object" else "PUT"
        http.send(method, parts.path, parts.query)
        value = parts.query.partition("&Signature=")[2].partition("&")[0]
        found += [value, unquote(value)]
    for version, name in ((4, "x-amz-signature"), (2, "signature")):
        poster = Poster(http, bucket)
        fields = poster.signed({"key": "k"}, [{"key": "k"}], version=version)
        for sent in (fields, {**fields, "acl": "x"}, {**fields, "policy": "x" + fields["policy"]}):
            poster.send(sent)
        found += [fields[name], fields["policy"]]
    # A client's own secret in the wrong place.
    signer = Signer("wJalrXUtnFEMI/K7MDENG", "secret-of-a-stranger")
    strange, _ = S3Http(store.endpoint, signer).signed_headers("GET", f"/{bucket}/k")
    send("GET", f"/{bucket}/k", strange)
    return [each for each in found if each]


@pytest.fixture(scope="module")
def of_users(store: Up, bucket: str) -> list[str]:
    """Secrets, tokens and signatures of a user and of its session, after both were used, rightly
    and wrongly, at the S3 port, at the admin port and for IAM and STS."""
    root = store.credentials
    admin = AdminClient(store.admin, root.access_key, root.secret_key, "us-east-1")
    admin.call("POST", "/admin/users", {"name": "ada"})
    admin.call("POST", "/admin/users/ada/attach", {"policy": "AdministratorAccess"})
    made = [admin.call("POST", "/admin/keys", {"user": "ada"}) for _ in range(2)]
    rotated = admin.call("POST", f"/admin/keys/{made[1]['key']['access_key']}/rotate")
    admin.close()
    found = [each["secret_key"] for each in (*made, rotated)]
    key, secret = made[0]["key"]["access_key"], made[0]["secret_key"]

    def client(service: str, **more: str) -> Any:
        names = {"aws_access_key_id": key, "aws_secret_access_key": secret, **more}
        return sdk.client(
            service,
            endpoint_url=store.endpoint,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}),
            **names,
        )

    sts = client("sts")
    wait_until(lambda: answered(sts.get_caller_identity), what="the user is known")
    given = sts.get_session_token()["Credentials"]
    client("iam").delete_access_key(AccessKeyId=rotated["key"]["access_key"], UserName="ada")
    iam_key = client("iam").create_access_key(UserName="ada")["AccessKey"]
    found += [iam_key["SecretAccessKey"], given["SecretAccessKey"], given["SessionToken"]]
    token = given["SessionToken"]
    web = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL3gifQ.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
    named = {"RoleArn": "arn:aws:iam::000000000000:role/r", "RoleSessionName": "s1"}
    answered(lambda: sts.assume_role_with_web_identity(**named, WebIdentityToken=web))
    found += [web, web.rpartition(".")[2]]
    for sent in (token, token[:-4], f"{token}AAAA", "a-token-of-a-stranger"):
        parts = {"aws_access_key_id": given["AccessKeyId"], "aws_session_token": sent}
        parts["aws_secret_access_key"] = given["SecretAccessKey"]
        for service, name in (("s3", "list_buckets"), ("iam", "list_users")):
            answered(getattr(client(service, **parts), name))
        s3 = client("s3", **parts)
        url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
        query = urlsplit(url).query
        http = S3Http(store.endpoint, Signer(key, secret))
        http.send("GET", f"/{bucket}/k", query)
        found += [sent, *SIGNATURE.findall(query)]
    return found


def answered(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ClientError:
        return False
    return True


@pytest.fixture(scope="module")
def customer_key(s3: Any, http: S3Http, bucket: str) -> list[str]:
    """A customer's key, as it is sent and as bytes, after it was used in every way."""
    name = {"Bucket": bucket, "Key": "sealed"}
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": CUSTOMER_KEY}
    s3.put_object(**name, Body=b"x" * 300_000, **key)
    s3.get_object(**name, **key)
    upload = s3.create_multipart_upload(**name, **key)["UploadId"]
    s3.upload_part(**name, UploadId=upload, PartNumber=1, Body=b"y", **key)
    source = {f"CopySource{part}": value for part, value in key.items()}
    s3.copy_object(**{**name, "Key": "copy"}, CopySource=name, **source, **key)
    text = b64encode(CUSTOMER_KEY).decode()
    prefix = "x-amz-server-side-encryption-customer"
    for md5 in ("", "AAAA", b64encode(md5_of(CUSTOMER_KEY)).decode()):
        headers = {f"{prefix}-algorithm": "AES256", f"{prefix}-key": text, f"{prefix}-key-md5": md5}
        for path in (f"/{bucket}/sealed", f"/{bucket}/none", f"/{bucket}/k"):
            http.request("GET", path, headers=headers)
            http.request("PUT", path + "-2", headers=headers, body=b"x")
            http.send("GET", path, headers=headers)
        ask_with = {**headers, "x": "\x01", "host": http.netloc}
        ask(http.port, request_bytes("GET", f"/{bucket}/sealed", ask_with))
    return [text, CUSTOMER_KEY.hex()]


def md5_of(key: bytes) -> bytes:
    return hashlib.md5(key).digest()


def test_logs_and_metrics_hold_no_secret(
    store: Up, used: list[str], of_users: list[str], customer_key: list[str]
) -> None:
    log = store.process.log.read_text(errors="replace")
    with urllib.request.urlopen(store.admin + "/metrics") as reply:
        metrics = reply.read().decode()
    master = [b64encode(MASTER_KEY).decode(), MASTER_KEY.hex()]
    assert len(used) > 10
    assert len(of_users) > 10
    for secret in (*used, *of_users, *customer_key, *master):
        assert secret not in log
        assert secret not in metrics
    assert "GetObject" in log, "the access log is written at this level"


def test_no_file_of_the_store_holds_a_key(
    store: Up, of_users: list[str], customer_key: list[str]
) -> None:
    """What is kept of users' secrets is sealed, of customers' keys nothing is, and master keys stay
    where they are configured."""
    secrets = [
        MASTER_KEY,
        CUSTOMER_KEY,
        b64encode(MASTER_KEY),
        store.credentials.secret_key.encode(),
    ]
    secrets += [text.encode() for text in (*of_users, *customer_key) if len(text) >= 32]
    files = [path for path in store.directory.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content, path


def test_an_answer_holds_no_secret(store: Up, http: S3Http, bucket: str) -> None:
    signer = Signer(http.signer.access_key, "another secret key")
    reply = S3Http(store.endpoint, signer).request("GET", f"/{bucket}/k")
    assert reply.code == "SignatureDoesNotMatch"
    assert http.signer.secret_key.encode() not in reply.body
    expected, _ = http.signed_headers("GET", f"/{bucket}/k")
    good = SIGNATURE.findall(expected["authorization"])[0]
    assert good.encode() not in reply.body


def test_the_command_line_of_processes_holds_no_secret(store: Up) -> None:
    for pid in [store.process.pid, *workers(store.process)]:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            assert store.credentials.secret_key.encode() not in file.read()
