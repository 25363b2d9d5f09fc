"""Users with policies on the S3 port: what they may do, what bucket policies say of them, and how
soon a change of theirs is known on every gateway."""

import json
import secrets
import time
import urllib.request
from urllib.error import HTTPError

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from compose.local import wait_until
from compose.s3_http import S3Http, Signer
from tests import sdk
from tests.compat.conftest import REGION, empty_bucket

PROCESSES_MET = 16
"""Requests, each over its own connection, after which every process of a gateway was met."""
WITHIN_SECONDS = 1.0
# A bound of time holds if it holds once: the machine of a test does other things too.
ATTEMPTS = 3
ACCOUNT = "000000000000"


@pytest.fixture
def iam(server):
    return sdk.client(
        "iam",
        endpoint_url=server.endpoint,
        region_name=REGION,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )


class User:
    """A user of the store under test, with one key."""

    def __init__(self, iam, server):
        self.name = f"user-{secrets.token_hex(6)}"
        self._iam = iam
        self._server = server
        self.user_id = iam.create_user(UserName=self.name)["User"]["UserId"]
        key = iam.create_access_key(UserName=self.name)["AccessKey"]
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]
        self.arn = f"arn:aws:iam::{ACCOUNT}:user/{self.name}"
        self.s3 = self.client(server.endpoint)

    def client(self, endpoint):
        return sdk.client(
            "s3",
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def may(self, *statements):
        """Replace what the user may do, and wait until every process knows."""
        mark = {"Effect": "Deny", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
        document = {"Version": "2012-10-17", "Statement": [*statements, mark]}
        for effect in ("Deny", "Allow"):
            mark["Effect"] = effect
            self._iam.put_user_policy(
                UserName=self.name, PolicyName="p", PolicyDocument=json.dumps(document)
            )
            expected = {"Deny": 403, "Allow": 200}[effect]
            self.until_everywhere(lambda reply, status=expected: reply.status == status)

    def until_everywhere(self, holds):
        """Wait until ListBuckets is answered so by every process of every gateway."""
        for endpoint in self._server.endpoints:
            http = S3Http(endpoint, Signer(self.access_key, self.secret_key))
            wait_until(
                lambda http=http: all(
                    holds(http.request("GET", "/")) for _ in range(PROCESSES_MET)
                ),
                what="the change is known",
            )

    def remove(self):
        for policy in self._iam.list_user_policies(UserName=self.name)["PolicyNames"]:
            self._iam.delete_user_policy(UserName=self.name, PolicyName=policy)
        self._iam.delete_access_key(UserName=self.name, AccessKeyId=self.access_key)
        self._iam.delete_user(UserName=self.name)


@pytest.fixture
def user(iam, server):
    made = User(iam, server)
    yield made
    made.remove()


def statement(*actions, on, effect="Allow", **more):
    return {"Effect": effect, "Action": list(actions), "Resource": on, **more}


def test_a_user_without_policies_may_nothing(s3, bucket, user, refused):
    user.may()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    attempts = [
        lambda: user.s3.get_object(Bucket=bucket, Key="k"),
        lambda: user.s3.put_object(Bucket=bucket, Key="k", Body=b"y"),
        lambda: user.s3.delete_object(Bucket=bucket, Key="k"),
        lambda: user.s3.list_objects_v2(Bucket=bucket),
        lambda: user.s3.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        ),
        lambda: user.s3.create_bucket(Bucket=f"compat-{secrets.token_hex(8)}"),
        lambda: user.s3.delete_bucket(Bucket=bucket),
    ]
    for attempt in attempts:
        with refused("AccessDenied", 403):
            attempt()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_user_may_what_its_policy_allows_and_where(s3, bucket, user, refused):
    user.may(
        statement("s3:GetObject", "s3:PutObject", on=f"arn:aws:s3:::{bucket}/${{aws:username}}/*"),
        statement(
            "s3:ListBucket",
            on=f"arn:aws:s3:::{bucket}",
            Condition={"StringLike": {"s3:prefix": "${aws:username}/*"}},
        ),
    )
    own, other = f"{user.name}/k", "somebody/k"
    s3.put_object(Bucket=bucket, Key=other, Body=b"x")
    user.s3.put_object(Bucket=bucket, Key=own, Body=b"mine")
    assert user.s3.get_object(Bucket=bucket, Key=own)["Body"].read() == b"mine"
    page = user.s3.list_objects_v2(Bucket=bucket, Prefix=f"{user.name}/", FetchOwner=True)
    (entry,) = page["Contents"]
    assert entry["Owner"]["ID"] == s3.list_buckets()["Owner"]["ID"]
    for key in (other, own[:-2] + "x/k"):
        with refused("AccessDenied", 403):
            user.s3.put_object(Bucket=bucket, Key=key, Body=b"")
    with refused("AccessDenied", 403):
        user.s3.list_objects_v2(Bucket=bucket)
    with refused("AccessDenied", 403):
        user.s3.delete_object(Bucket=bucket, Key=own)


def test_buckets_that_users_make_are_the_accounts(s3, user):
    user.may(statement("s3:*", on="*"))
    name = f"compat-{secrets.token_hex(8)}"
    user.s3.create_bucket(Bucket=name)
    try:
        user.s3.put_object(Bucket=name, Key="k", Body=b"x")
        assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"x"
        assert name in [each["Name"] for each in s3.list_buckets()["Buckets"]]
        mine, roots = user.s3.list_buckets(), s3.list_buckets()
        assert mine["Owner"] == roots["Owner"]
        assert name in [each["Name"] for each in mine["Buckets"]]
        user.s3.create_bucket(Bucket=name)
    finally:
        empty_bucket(s3, name)
        s3.delete_bucket(Bucket=name)


def test_who_began_an_upload_is_shown_beside_who_owns_it(s3, bucket, user):
    user.may(statement("s3:*", on="*"))
    for client, initiator in ((user.s3, user.arn), (s3, s3.list_buckets()["Owner"]["ID"])):
        upload = client.create_multipart_upload(Bucket=bucket, Key="k")
        target = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"]}
        parts = s3.list_parts(**target)
        (listed,) = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
        for shown in (parts, listed):
            assert shown["Initiator"]["ID"] == initiator
            assert shown["Owner"]["ID"] == s3.list_buckets()["Owner"]["ID"]
        assert (parts["Initiator"].get("DisplayName") == user.name) == (initiator == user.arn)
        s3.abort_multipart_upload(**target)


@pytest.mark.parametrize("named", ["arn", "user_id"])
def test_a_bucket_policy_lets_a_user_in_and_denies_one(
    s3, bucket, user, put_policy, refused, named
):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    principal = {"AWS": getattr(user, named)}
    user.may()
    put_policy(bucket, {"Principal": principal})
    assert user.s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    with refused("AccessDenied", 403):
        user.s3.put_object(Bucket=bucket, Key="k", Body=b"y")
    user.may(statement("s3:*", on="*"))
    put_policy(bucket, {"Principal": principal, "Effect": "Deny"})
    with refused("AccessDenied", 403):
        user.s3.get_object(Bucket=bucket, Key="k")
    user.s3.put_object(Bucket=bucket, Key="k", Body=b"y")


def test_naming_the_account_leaves_it_to_the_users_own_policies(
    s3, bucket, user, put_policy, refused
):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(bucket, {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}})
    user.may()
    with refused("AccessDenied", 403):
        user.s3.get_object(Bucket=bucket, Key="k")
    user.may(statement("s3:GetObject", on="*"))
    user.s3.get_object(Bucket=bucket, Key="k")


def test_copying_needs_both_ends(s3, make_bucket, user, refused):
    source, target = make_bucket(), make_bucket()
    s3.put_object(Bucket=source, Key="k", Body=b"x")
    copy = {"Bucket": target, "Key": "k", "CopySource": f"{source}/k"}
    user.may(statement("s3:PutObject", on=f"arn:aws:s3:::{target}/*"))
    with refused("AccessDenied", 403):
        user.s3.copy_object(**copy)
    user.may(
        statement("s3:PutObject", on=f"arn:aws:s3:::{target}/*"),
        statement("s3:GetObject", on=f"arn:aws:s3:::{source}/*"),
    )
    user.s3.copy_object(**copy)


def test_each_key_of_delete_objects_is_asked_for(s3, bucket, user):
    for key in ("a/1", "b/1"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    user.may(statement("s3:DeleteObject", on=f"arn:aws:s3:::{bucket}/a/*"))
    objects = [{"Key": "a/1"}, {"Key": "b/1"}]
    reply = user.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert [each["Key"] for each in reply["Deleted"]] == ["a/1"]
    assert [(each["Key"], each["Code"]) for each in reply["Errors"]] == [("b/1", "AccessDenied")]


def test_a_disabled_key_is_refused_by_every_gateway_within_a_second(s3, iam, server, bucket, user):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    user.may(statement("s3:*", on="*"))
    gateways = [
        S3Http(endpoint, Signer(user.access_key, user.secret_key)) for endpoint in server.endpoints
    ]
    key = {"UserName": user.name, "AccessKeyId": user.access_key}
    for attempt in range(1, ATTEMPTS + 1):
        iam.update_access_key(**key, Status="Inactive")
        seconds = allowed_seconds(gateways, f"/{bucket}/k")
        if seconds < WITHIN_SECONDS:
            break
        assert attempt < ATTEMPTS, seconds
        iam.update_access_key(**key, Status="Active")
        user.until_everywhere(lambda reply: reply.status == 200)


def allowed_seconds(gateways, path):
    """For how long a user's key, just disabled, is still good for something."""
    disabled = time.monotonic()
    last_allowed, refusals = disabled, 0
    while refusals < PROCESSES_MET * len(gateways):
        for gateway in gateways:
            began = time.monotonic()
            reply = gateway.request("GET", path)
            if reply.status == 200:
                last_allowed, refusals = began, 0
            else:
                assert (reply.status, reply.code) == (403, "InvalidAccessKeyId")
                refusals += 1
    return last_allowed - disabled


def test_a_presigned_url_ends_with_its_key(s3, iam, bucket, user):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    user.may(statement("s3:GetObject", on="*"))
    url = user.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    assert urllib.request.urlopen(url).read() == b"x"
    iam.update_access_key(UserName=user.name, AccessKeyId=user.access_key, Status="Inactive")
    user.until_everywhere(lambda reply: reply.code == "InvalidAccessKeyId")
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(url)
    assert caught.value.code == 403


def test_the_wrong_secret_of_a_user_is_a_wrong_signature(server, bucket, user):
    user.may()
    http = S3Http(server.endpoint, Signer(user.access_key, user.secret_key[:-1] + "!"))
    reply = http.request("GET", f"/{bucket}")
    assert (reply.status, reply.code) == (403, "SignatureDoesNotMatch")


def test_a_session_token_is_nothing_beside_a_users_own_key(bucket, user):
    user.may(statement("s3:*", on="*"))
    client = sdk.client(
        "s3",
        endpoint_url=user.s3.meta.endpoint_url,
        region_name=REGION,
        aws_access_key_id=user.access_key,
        aws_secret_access_key=user.secret_key,
        aws_session_token="x",
    )
    with pytest.raises(ClientError) as caught:
        client.list_objects_v2(Bucket=bucket)
    assert caught.value.response["Error"]["Code"] == "InvalidToken"
