"""Every operation of the route table, in ways that are the same for all: allowed by exactly its
permissions, denied by a policy, asked by a user without policies, by a session and by nobody, and
given what it cannot take. What an operation does has a file of its own, which is checked here."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from compose.local import wait_until
from compose.s3_http import S3Http, Signer
from s3gw.server.routes import ROWS, Asks, Scope
from tests import sdk
from tests.attacks.in_process import BODIES, SIGNED_ROWS, Request, requests
from tests.attacks.target import SOAK
from tests.compat.conftest import BACKENDS, REGION
from tests.compat.forms import Poster
from tests.iam.conftest import Keys

HERE = Path(__file__).parent
# Operations that share a file, because one cannot be tested without the other.
SHARED = {
    "GetBucketVersioning": "test_bucket_versioning.py",
    "PutBucketVersioning": "test_bucket_versioning.py",
    "GetObjectLockConfiguration": "test_object_lock.py",
    "PutObjectLockConfiguration": "test_object_lock.py",
    "GetObjectLegalHold": "test_object_lock.py",
    "PutObjectLegalHold": "test_object_lock.py",
    "GetObjectRetention": "test_object_lock.py",
    "PutObjectRetention": "test_object_lock.py",
}
# What is asked for beside the row's action.
MORE = {
    "CopyObject": ["s3:GetObject"],
    "GetObjectAttributes": ["s3:GetObject"],
    "RenameObject": ["s3:GetObject", "s3:DeleteObject"],
    "UploadPartCopy": ["s3:GetObject"],
}
PROCESSES_MET = 16
"""Requests, each over its own connection, after which every process of a gateway was met."""
# Who may do what is decided before the engine is asked: one engine is enough for every run.
one_engine = pytest.mark.parametrize(
    "server", BACKENDS if SOAK else BACKENDS[:1], indirect=True, scope="session"
)
BUILT = [row for row in SIGNED_ROWS if row.handler]


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("row", [row for row in ROWS if row.handler], ids=lambda row: row.name)
def test_every_built_operation_has_tests_of_its_own(row):
    names = [f"test_{snake(name)}.py" for name in (row.name, *row.aliases)]
    names.append(SHARED.get(row.name, names[0]))
    files = [HERE / name for name in names if (HERE / name).exists()]
    assert files, f"there is no tests/compat/{names[0]}"
    text = files[0].read_text()
    assert "\ndef test_" in text, files[0]
    spelt = {form for name in (row.name, *row.aliases) for form in (name, snake(name))}
    assert row.method == "OPTIONS" or any(name in text for name in spelt), files[0]


@pytest.fixture(scope="module")
def callers(server):
    """`everything` may do all, `nothing` nothing; every process knows them."""

    def client(service, keys):
        return sdk.client(
            service,
            endpoint_url=server.endpoint,
            region_name=REGION,
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
        )

    iam = client("iam", Keys(server.access_key, server.secret_key))
    made = {}
    for name in ("everything", "nothing"):
        iam.create_user(UserName=name)
        if name == "everything":
            document = statements({"Effect": "Allow", "Action": "*", "Resource": "*"})
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        made[name] = Keys(key["AccessKeyId"], key["SecretAccessKey"])

    def known(http, code):
        return all(http.request("GET", "/").code == code for _ in range(PROCESSES_MET))

    for name, code in (("everything", ""), ("nothing", "AccessDenied")):
        http = S3Http(server.endpoint, Signer(made[name].access_key, made[name].secret_key))
        wait_until(lambda http=http, code=code: known(http, code), what="the user is known")
    sts = client("sts", made["everything"])

    def session(*given):
        """Credentials that may do what these statements allow."""
        found = sts.get_federation_token(Name="guest", Policy=statements(*given))["Credentials"]
        return Keys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])

    yield made["nothing"], session
    iam.delete_user_policy(UserName="everything", PolicyName="p")
    for name, keys in made.items():
        iam.delete_access_key(UserName=name, AccessKeyId=keys.access_key)
        iam.delete_user(UserName=name)


def statements(*given):
    return json.dumps({"Version": "2012-10-17", "Statement": list(given)})


def ask(server, request, keys):
    """The request of a row, signed in its headers, or a form in its fields; by nobody for None."""
    if keys is None:
        http = server.http()
        if request.row.name == "PostObject":
            return Poster(http, request.path[1:]).send({"key": "new"})
        return http.send(
            request.row.method,
            request.path,
            request.query,
            headers=request.headers,
            body=request.body,
        )
    http = S3Http(server.endpoint, Signer(keys.access_key, keys.secret_key))
    if request.row.name == "PostObject":
        poster, fields = Poster(http, request.path[1:]), {"key": "new"}
        exact = [{name: value} for name, value in fields.items()]
        return poster.send(poster.signed(fields, exact, token=keys.token or ""))
    headers = dict(request.headers)
    if keys.token is not None:
        headers["x-amz-security-token"] = keys.token
    return http.request(
        request.row.method, request.path, request.query, headers=headers, body=request.body
    )


@pytest.fixture
def request_of(s3, bucket):
    """The request of a row about an object, its bucket or the store."""
    s3.put_object(Bucket=bucket, Key="kept", Body=b"as it was")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="kept")["UploadId"]

    def find(row) -> Request:
        found = requests(upload, bucket=bucket)
        return next(request for request in found if request.row is row)

    return find


def is_denied(reply):
    # An answer to HEAD has no code; DeleteObjects answers about each key.
    head = reply.status == 403 and not reply.body
    return head or (reply.code == "AccessDenied" and b"<Deleted>" not in reply.body)


@one_engine
@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.name)
def test_who_may_not_is_denied(server, s3, bucket, callers, request_of, row):
    nothing, session = callers
    request = request_of(row)
    deny = {"Effect": "Deny", "Action": row.action, "Resource": "*"}
    all_else = session({"Effect": "Allow", "Action": "*", "Resource": "*"}, deny)
    elsewhere = session({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::other/*"})
    for keys in (nothing, all_else, elsewhere, None):
        reply = ask(server, request, keys)
        assert is_denied(reply), (keys, reply.status, reply.body)
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"as it was"
    assert len(s3.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
    assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 1


@one_engine
@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.name)
def test_its_permissions_are_enough(server, callers, request_of, row):
    """With them the answer is about the request itself, which may be an error."""
    actions = [row.action, *MORE.get(row.name, ())]
    keys = callers[1]({"Effect": "Allow", "Action": actions, "Resource": "*"})
    reply = ask(server, request_of(row), keys)
    assert reply.status < 500, reply.body
    assert not is_denied(reply), reply.body


@one_engine
@pytest.mark.parametrize(
    "row",
    [row for row in BUILT if row.scope is not Scope.SERVICE and row.name != "CreateBucket"],
    ids=lambda row: row.name,
)
def test_a_bucket_that_is_missing_or_of_others_is_refused(
    server, http, missing_bucket, request_of, row
):
    request = request_of(row)
    root = Keys(server.access_key, server.secret_key)
    there, _, key = request.path.removeprefix("/").partition("/")
    missing = f"/{missing_bucket}/{key}" if key else f"/{missing_bucket}"
    headers = {
        name: value.replace(there, missing_bucket) for name, value in request.headers.items()
    }
    reply = ask(server, replace(request, path=missing, headers=headers), root)
    assert reply.status == 404, reply.body
    assert reply.code == "NoSuchBucket" or row.method == "HEAD"
    if row.name != "PostObject":
        headers = {**request.headers, "x-amz-expected-bucket-owner": "111122223333"}
        assert is_denied(ask(server, replace(request, headers=headers), root))


@one_engine
@pytest.mark.parametrize(
    "row", [row for row in BUILT if row.body.kind in ("xml", "json")], ids=lambda row: row.name
)
def test_a_body_that_is_no_document_is_refused(server, s3, bucket, request_of, row):
    root = Keys(server.access_key, server.secret_key)
    request = request_of(row)
    for body in (b"<", b"<Unknown/>", b"[]", b"\0", b"<!DOCTYPE a><a/>", b"\xff\xfe"):
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        asked = replace(request, body=body, headers={**request.headers, "content-md5": md5})
        reply = ask(server, asked, root)
        assert reply.status == 400, (body, reply.status, reply.body)
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"as it was"


def test_what_is_asked_for_each_item_has_a_body_here():
    items = {row.name for row in ROWS if row.asks is Asks.ITEM}
    assert items == BODIES.keys()
