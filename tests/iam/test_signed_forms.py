"""Forms signed by users and by sessions: the policy of the form, and what its signer may do."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from compose.s3_http import Reply, S3Http, Signer
from tests.compat.forms import Poster
from tests.iam.conftest import Keys, Server, fresh, make_user, policy, until

TAGS = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"


@pytest.fixture
def bucket(server: Server) -> str:
    name = fresh("forms")
    server.client("s3").create_bucket(Bucket=name)
    return name


def post(
    server: Server,
    keys: Keys,
    bucket: str,
    fields: dict[str, str],
    *without: str,
    version: str = "s3v4",
) -> Reply:
    """Send a form that boto3 presigned with these keys, without some of its fields."""
    client = server.client("s3", keys, signature_version=version)
    conditions = [{name: value} for name, value in fields.items() if name != "key"]
    made = client.generate_presigned_post(
        bucket, fields["key"], {n: v for n, v in fields.items() if n != "key"}, conditions
    )
    url = urlsplit(made["url"])
    http = S3Http(f"http://{url.netloc}", Signer(keys.access_key, keys.secret_key))
    sent = {name: value for name, value in made["fields"].items() if name not in without}
    return Poster(http, bucket).send(sent)


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_user_signs_away_only_what_is_his(server: Server, bucket: str, version: str) -> None:
    _, keys = make_user(server, policy("s3:PutObject", resource=f"arn:aws:s3:::{bucket}/mine/*"))
    assert post(server, keys, bucket, {"key": "mine/a"}, version=version).status == 204
    for fields in (
        {"key": "others/a"},
        {"key": "mine/b", "tagging": TAGS},
        {"key": "mine/b", "acl": "private"},
        {"key": "mine/b", "x-amz-object-lock-legal-hold": "ON"},
    ):
        reply = post(server, keys, bucket, fields, version=version)
        assert (reply.status, reply.code) == (403, "AccessDenied")
    listed = server.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert [each["Key"] for each in listed] == ["mine/a"]


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_session_signs_with_its_token(server: Server, bucket: str, version: str) -> None:
    _, keys = make_user(server, policy("s3:*", "sts:GetSessionToken"))
    session = Keys.of(server.client("sts", keys).get_session_token())
    assert post(server, session, bucket, {"key": "a"}, version=version).status == 204
    for reply, code in (
        (post(server, session, bucket, {"key": "a"}, "x-amz-security-token"), "InvalidAccessKeyId"),
        (post(server, Keys(*keys_of(session), "made up"), bucket, {"key": "a"}), "InvalidToken"),
        (post(server, Keys(*keys_of(keys), session.token), bucket, {"key": "a"}), "InvalidToken"),
    ):
        assert (reply.status in (400, 403), reply.code) == (True, code)


def keys_of(keys: Keys) -> tuple[str, str]:
    return keys.access_key, keys.secret_key


def test_the_policy_of_a_session_limits_its_forms(server: Server, bucket: str) -> None:
    _, keys = make_user(server, policy("s3:*", "sts:GetFederationToken"))
    limit = policy("s3:PutObject", resource=f"arn:aws:s3:::{bucket}/in/*")
    reply = server.client("sts", keys).get_federation_token(Name="form", Policy=limit)
    session = Keys.of(reply)
    assert post(server, session, bucket, {"key": "in/a"}).status == 204
    assert post(server, session, bucket, {"key": "out/a"}).code == "AccessDenied"


def test_a_key_that_is_off_signs_nothing(server: Server, bucket: str) -> None:
    name, keys = make_user(server, policy("s3:*"))
    iam: Any = server.client("iam")
    iam.update_access_key(UserName=name, AccessKeyId=keys.access_key, Status="Inactive")
    until(
        lambda: post(server, keys, bucket, {"key": "a"}).code == "InvalidAccessKeyId",
        "the key is off",
    )
