"""aws cli beyond copying: encryption, versions, locks, configurations of buckets, iam and sts."""

import hashlib
import json
import secrets
import sys
from pathlib import Path

import pytest

from compose.local import wait_until
from tests.compat.conftest import BACKENDS, empty_bucket

MIB = 1024 * 1024
pytestmark = pytest.mark.parametrize("server", BACKENDS[:1], indirect=True, scope="session")
DAY = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
ACCOUNT = "000000000000"


@pytest.fixture
def answers(server, run):
    """`answers(commands, credentials)` → (exit code, standard output, errors) of each."""
    script = Path(__file__).with_name("with_aws_cli.py")
    environment = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    def execute(commands, credentials=None):
        words = [[*each, "--endpoint-url", server.endpoint] for each in commands]
        said = run(
            [sys.executable, script, json.dumps(words)], {**environment, **(credentials or {})}
        )
        return json.loads(said)

    return execute


@pytest.fixture
def aws(answers):
    """`aws(commands, credentials)` → what each printed, from its JSON; all must succeed."""

    def execute(commands, credentials=None):
        read = []
        for words, (code, said, errors) in zip(
            commands, answers(commands, credentials), strict=True
        ):
            assert code == 0, (words, errors)
            read.append(json.loads(said) if said.lstrip()[:1] in ("{", "[") else said)
        return read

    return execute


def test_objects_are_encrypted_with_keys_of_the_store_and_of_the_customer(
    answers, s3, bucket, tmp_path
):
    body = secrets.token_bytes(9 * MIB)
    (tmp_path / "body").write_bytes(body)
    (tmp_path / "key").write_bytes(b"k" * 32)
    at = f"s3://{bucket}"
    copy = ["s3", "cp", "--no-progress"]
    key = ["--sse-c", "AES256", "--sse-c-key", "fileb://key"]
    source = ["--sse-c-copy-source", "AES256", "--sse-c-copy-source-key", "fileb://key"]
    *done, refused = answers(
        [
            [*copy, "--sse", "AES256", "body", f"{at}/sse"],
            [*copy, f"{at}/sse", "from-sse"],
            [*copy, *key, "body", f"{at}/ssec"],
            [*copy, *key, f"{at}/ssec", "from-ssec"],
            [*copy, *source, *key, f"{at}/ssec", f"{at}/again"],
            [*copy, *source, f"{at}/ssec", f"{at}/plain"],
            [*copy, f"{at}/ssec", "refused"],
        ]
    )
    assert [each for each in done if each[0] != 0] == []
    assert (refused[0], "HeadObject" in refused[2]) == (1, True)
    assert {(tmp_path / name).read_bytes() for name in ("from-sse", "from-ssec")} == {body}
    assert s3.head_object(Bucket=bucket, Key="sse")["ServerSideEncryption"] == "AES256"
    customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32}
    for name, more in (("plain", {}), ("ssec", customer), ("again", customer)):
        found = s3.get_object(Bucket=bucket, Key=name, **more)["Body"].read()
        assert hashlib.sha256(found).digest() == hashlib.sha256(body).digest()


def test_versions_are_made_listed_and_restored(aws, bucket, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    on = ["--bucket", bucket, "--key", "k"]
    enable = ["s3api", "put-bucket-versioning", "--bucket", bucket]
    _, first, _, deleted, listed = aws(
        [
            [*enable, "--versioning-configuration", "Status=Enabled"],
            ["s3api", "put-object", *on, "--body", "one", "--tagging", "a=b"],
            ["s3api", "put-object", *on, "--body", "two"],
            ["s3api", "delete-object", *on],
            ["s3api", "list-object-versions", "--bucket", bucket],
        ]
    )
    assert deleted["DeleteMarker"] is True
    assert (len(listed["Versions"]), len(listed["DeleteMarkers"])) == (2, 1)
    source = f"{bucket}/k?versionId={first['VersionId']}"
    aws(
        [
            ["s3api", "copy-object", *on, "--copy-source", source],
            ["s3api", "get-object", *on, "restored"],
        ]
    )
    assert (tmp_path / "restored").read_text() == "one"


def test_a_locked_version_stays_until_it_is_released(answers, aws, s3, bucket, tmp_path):
    name = f"{bucket}-locked"
    (tmp_path / "body").write_text("kept")
    locked = ["--bucket", name, "--key", "k"]
    rule = json.dumps({"ObjectLockEnabled": "Enabled", "Rule": DAY})
    configure = ["s3api", "put-object-lock-configuration", "--bucket", name]
    *_, put = aws(
        [
            ["s3api", "create-bucket", "--bucket", name, "--object-lock-enabled-for-bucket"],
            [*configure, "--object-lock-configuration", rule],
            ["s3api", "put-object", *locked, "--body", "body"],
        ]
    )
    try:
        hold = ["s3api", "put-object-legal-hold", *locked, "--legal-hold"]
        remove = ["s3api", "delete-object", *locked, "--version-id", put["VersionId"]]
        bypass = [*remove, "--bypass-governance-retention"]
        found = answers(
            [
                *([*hold, "Status=ON"], remove, bypass),
                *([*hold, "Status=OFF"], remove, bypass),
            ]
        )
        assert [code for code, _, _ in found] == [0, 255, 255, 0, 255, 0], found
        assert all("AccessDenied" in errors for code, _, errors in found if code)
    finally:
        empty_bucket(s3, name)
        s3.delete_bucket(Bucket=name)


def test_configurations_of_a_bucket_come_back(aws, bucket):
    rules = {"Rules": [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}}]}
    rules["Rules"][0]["Expiration"] = {"Days": 1}
    cors = {"CORSRules": [{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}]}
    on = ["--bucket", bucket]
    lifecycle = ["s3api", "put-bucket-lifecycle-configuration", *on]
    kept = aws(
        [
            [*lifecycle, "--lifecycle-configuration", json.dumps(rules)],
            ["s3api", "put-bucket-cors", *on, "--cors-configuration", json.dumps(cors)],
            ["s3api", "put-bucket-tagging", *on, "--tagging", "TagSet=[{Key=a,Value=b}]"],
            ["s3", "website", f"s3://{bucket}", "--index-document", "index.html"],
            ["s3api", "get-bucket-lifecycle-configuration", *on],
            ["s3api", "get-bucket-cors", *on],
            ["s3api", "get-bucket-tagging", *on],
            ["s3api", "get-bucket-website", *on],
            ["s3api", "get-bucket-acl", *on],
        ]
    )[4:]
    assert kept[0]["Rules"] == rules["Rules"]
    assert kept[1] == cors
    assert kept[2]["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert kept[3]["IndexDocument"] == {"Suffix": "index.html"}
    assert [grant["Permission"] for grant in kept[4]["Grants"]] == ["FULL_CONTROL"]


def policy(action, **more):
    statement = {"Effect": "Allow", "Action": action, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def credentials_of(found):
    names = {
        "AccessKeyId": "AWS_ACCESS_KEY_ID",
        "SecretAccessKey": "AWS_SECRET_ACCESS_KEY",
        "SessionToken": "AWS_SESSION_TOKEN",
    }
    return {names[name]: value for name, value in found.items() if name in names}


def test_a_user_of_iam_takes_a_role_of_sts(aws, answers, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    name = f"cli-{secrets.token_hex(6)}"
    user, role = ["--user-name", name], ["--role-name", name]
    arn = f"arn:aws:iam::{ACCOUNT}:user/{name}"
    trust = policy("sts:AssumeRole", Principal={"AWS": arn})
    allowed = policy("s3:GetObject", Resource=f"arn:aws:s3:::{bucket}/*")
    key = aws(
        [
            ["iam", "create-user", *user],
            ["iam", "create-access-key", *user],
            ["iam", "create-role", *role, "--assume-role-policy-document", trust],
            ["iam", "put-role-policy", *role, "--policy-name", "p", "--policy-document", allowed],
        ]
    )[1]["AccessKey"]
    own = credentials_of(key)
    identity = ["sts", "get-caller-identity"]
    # What is changed is known everywhere within a second.
    wait_until(lambda: answers([identity], own)[0][0] == 0, what="the user is known")
    read = ["s3", "cp", f"s3://{bucket}/k", "-"]
    take = ["sts", "assume-role", "--role-arn", f"arn:aws:iam::{ACCOUNT}:role/{name}"]
    who, denied, taken = answers([identity, read, [*take, "--role-session-name", "here"]], own)
    assert json.loads(who[1])["Arn"] == arn
    assert (denied[0], "403" in denied[2]) == (1, True)
    session = credentials_of(json.loads(taken[1])["Credentials"])
    found = answers([identity, read], session)
    assert json.loads(found[0][1])["Arn"].endswith(f":assumed-role/{name}/here")
    assert found[1][:2] == [0, "hello"]
    aws(
        [
            ["iam", "delete-role-policy", *role, "--policy-name", "p"],
            ["iam", "delete-role", *role],
            ["iam", "delete-access-key", *user, "--access-key-id", key["AccessKeyId"]],
            ["iam", "delete-user", *user],
        ]
    )
