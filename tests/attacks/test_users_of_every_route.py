"""Every built route, asked by those who may not: users without policies, keys that are disabled,
sessions of who is disabled, service accounts whose own policy allows something else, and nobody.

Generated from the route table, with requests that the store serves when root signs them.
"""

import base64
import hashlib
import json
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from compose.local import Up, wait_until
from compose.s3_http import S3Http, Signer
from s3gw.admin.client import AdminClient
from s3gw.server.routes import Asks
from tests import sdk
from tests.attacks.test_signatures_of_every_route import Case, Sent, cases, send, signed

REGION = "us-east-1"
TOKEN = "x-amz-security-token"
# Of those that ask for what is in their body: one that they take.
BODIES = {
    "DeleteObjects": b"<Delete><Object><Key>kept</Key></Object></Delete>",
    "PutObjectTagging": b"<Tagging><TagSet></TagSet></Tagging>",
    "PutObjectLegalHold": b"<LegalHold><Status>ON</Status></LegalHold>",
    "PutObjectRetention": b"<Retention><Mode>GOVERNANCE</Mode>"
    b"<RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
}
EVERYTHING = "AdministratorAccess"
NOTHING_HERE = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::elsewhere/*"},
    }
)


@dataclass(frozen=True)
class Caller:
    """Who asks, and the error code that all of it is answered with."""

    name: str
    access_key: str
    secret_key: str
    code: str
    token: str = ""


@pytest.fixture(scope="module")
def admin(store: Up) -> Iterator[AdminClient]:
    keys = store.credentials
    client = AdminClient(store.admin, keys.access_key, keys.secret_key, REGION)
    yield client
    client.close()


def made_key(admin: AdminClient, user: str, **more: Any) -> tuple[str, str]:
    made = admin.call("POST", "/admin/keys", {"user": user, **more})
    return made["key"]["access_key"], made["secret_key"]


@pytest.fixture(scope="module")
def callers(store: Up, admin: AdminClient) -> list[Caller]:
    """Those who may not. All but the first have a user that may do everything, so that what stops
    them is what they are named after."""
    for name in ("outsider", "former", "app"):
        admin.call("POST", "/admin/users", {"name": name})
    for name in ("former", "app"):
        admin.call("POST", f"/admin/users/{name}/attach", {"policy": EVERYTHING})
    outsider = made_key(admin, "outsider")
    former = made_key(admin, "former")
    disabled = made_key(admin, "app")
    limited = made_key(admin, "app", service=True, policy=NOTHING_HERE)

    def session_of(keys: tuple[str, str]) -> dict[str, str]:
        sts = sdk.client(
            "sts",
            endpoint_url=store.endpoint,
            region_name=REGION,
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
        )
        found: dict[str, str] = sts.get_session_token()["Credentials"]
        return found

    wait_until(lambda: known(store, former) and known(store, limited), what="users are known")
    sessions = {name: session_of(keys) for name, keys in (("former", former), ("limited", limited))}
    admin.call("POST", f"/admin/keys/{disabled[0]}/status", {"status": "Inactive"})
    admin.call("POST", "/admin/users/former/status", {"status": "Inactive"})
    wait_until(
        lambda: not known(store, former) and not known(store, disabled), what="they are disabled"
    )

    def session(name: str, code: str, of: str) -> Caller:
        found = sessions[of]
        keys = found["AccessKeyId"], found["SecretAccessKey"]
        return Caller(name, *keys, code, found["SessionToken"])

    return [
        Caller("a user without policies", *outsider, "AccessDenied"),
        Caller("a key that is disabled", *disabled, "InvalidAccessKeyId"),
        Caller("a key of a user that is disabled", *former, "InvalidAccessKeyId"),
        Caller("a limited service account", *limited, "AccessDenied"),
        session("a session of a user that is disabled", "InvalidToken", "former"),
        session("a session of a limited service account", "AccessDenied", "limited"),
    ]


def known(store: Up, keys: tuple[str, str]) -> bool:
    reply = S3Http(store.endpoint, Signer(*keys)).request("GET", "/")
    return reply.code != "InvalidAccessKeyId"


def signed_by(http: S3Http, case: Case, caller: Caller) -> Sent:
    """The request, signed by the caller, its session token included."""
    its = replace(case, key=caller.access_key, secret=caller.secret_key)
    if case.row.name in BODIES:
        body = BODIES[case.row.name]
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        its = replace(its, body=body, headers={**case.headers, "content-md5": md5})
    if caller.token:
        if case.place == "header":
            its = replace(its, headers={**its.headers, TOKEN: caller.token})
        else:
            value = urllib.parse.quote(caller.token, safe="~")
            query = f"{case.query}&X-Amz-Security-Token={value}".removeprefix("&")
            its = replace(its, query=query)
    return signed(http, its)


@pytest.fixture
def contents(s3: Any, bucket: str) -> Callable[[], object]:
    """All that the requests could have changed."""
    s3.put_object(Bucket=bucket, Key="kept", Body=b"as it was")

    def read() -> object:
        names = [each["Name"] for each in s3.list_buckets()["Buckets"]]
        versions = s3.list_object_versions(Bucket=bucket).get("Versions", [])
        uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        settings = [s3.get_bucket_versioning(Bucket=bucket).get("Status")]
        return names, versions, uploads, settings

    return read


def test_no_route_serves_who_may_not(
    http: S3Http, s3: Any, bucket: str, callers: list[Caller], contents: Callable[[], object]
) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="kept")["UploadId"]
    before = contents()
    count = 0
    for caller in callers:
        for case in cases(bucket, upload):
            if case.mode not in ("hashed", "signed chunks") or case.row.asks is Asks.NOBODY:
                continue
            reply = send(http, signed_by(http, case, caller))
            told = (case.name, caller.name, reply.status, reply.body)
            if case.row.name == "DeleteObjects" and caller.code == "AccessDenied":
                assert b"<Deleted>" not in reply.body, told
                assert b"<Code>AccessDenied</Code>" in reply.body, told
                continue
            assert reply.status in (400, 403), told
            # A form is read before its fields say who asks. An answer to HEAD has no code.
            form = case.row.name == "PostObject" and caller.code == "AccessDenied"
            assert reply.code == caller.code or case.row.method == "HEAD" or form, told
            count += 1
    assert contents() == before
    assert count > 500


def test_nobody_is_served_without_a_signature(
    http: S3Http, s3: Any, bucket: str, contents: Callable[[], object]
) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="kept")["UploadId"]
    before = contents()
    for case in cases(bucket, upload):
        if case.mode != "unsigned" or case.place != "header" or case.row.asks is Asks.NOBODY:
            continue
        headers = {"host": http.netloc, **case.headers}
        bare = Sent(case.row.method, case.path, case.query, headers, case.body)
        reply = send(http, bare)
        expected = 412 if case.row.name == "PostObject" else 403  # its body is no form
        assert reply.status == expected, (case.name, reply.status, reply.body)
    assert contents() == before


def test_secrets_of_users_are_in_no_log(
    store: Up, http: S3Http, bucket: str, callers: list[Caller]
) -> None:
    for caller in callers:
        for case in cases(bucket, "0" * 32):
            if case.row.name == "GetObject" and case.mode == "hashed":
                send(http, signed_by(http, case, caller))
    log = store.process.log.read_text(errors="replace")
    assert "/admin/keys" in log
    for caller in callers:
        assert caller.secret_key not in log
        assert not caller.token or caller.token not in log
