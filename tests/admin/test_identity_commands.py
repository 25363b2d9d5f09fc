"""`s3gw admin user|group|key|policy|role …` as processes against a real store, and what the keys
that they make may do there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from compose.local import Up, running, wait_until
from tests import sdk
from tests.admin.test_command_line import admin, answer, shown
from tests.identities.policies import allow, trust

PROCESSES_MET = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("identities") / "store")
    with running(up):
        s3 = client(up, up.credentials.access_key, up.credentials.secret_key)
        s3.create_bucket(Bucket="things")
        s3.put_object(Bucket="things", Key="k", Body=b"x")
        yield up


def client(store: Up, access_key: str, secret_key: str) -> Any:
    return sdk.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def client_of(store: Up, made: Any) -> Any:
    return client(store, made["key"]["access_key"], made["secret_key"])


def code(call: Any, **parameters: Any) -> str:
    """The error that a call is answered with; "" for none."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def until(call: Any, expected: str, **parameters: Any) -> None:
    """Wait until every process answers so."""

    def everywhere() -> bool:
        return all(code(call, **parameters) == expected for _ in range(PROCESSES_MET))

    wait_until(everywhere, what=f"{expected or 'success'} everywhere")


def file_of(folder: Path, text: str) -> str:
    path = folder / "policy.json"
    path.write_text(text)
    return str(path)


def test_a_user_from_the_first_command_to_the_last(store: Up, tmp_path: Path) -> None:
    policy = file_of(tmp_path, allow("s3:GetObject"))
    assert "alice" in shown(store, "user", "create", "alice", "--tag", "team=blue")
    assert "reads" in shown(store, "policy", "create", "reads", policy, "--description", "only")
    shown(store, "user", "attach", "alice", "reads")
    text = shown(store, "key", "create", "alice")
    assert "secret key" in text
    assert "not shown again" in text
    made = answer(store, "key", "create", "alice")
    s3 = client_of(store, made)
    target = {"Bucket": "things", "Key": "k"}
    until(s3.get_object, "", **target)
    assert code(s3.put_object, **target) == "AccessDenied"

    key = made["key"]["access_key"]
    for command in (("key", "list"), ("key", "show", key), ("user", "keys", "alice")):
        told = shown(store, *command)
        assert key in told
        assert made["secret_key"] not in told
    shown(store, "key", "disable", key)
    until(s3.get_object, "InvalidAccessKeyId", **target)
    shown(store, "key", "enable", key)
    until(s3.get_object, "", **target)
    rotated = answer(store, "key", "rotate", key)
    until(s3.get_object, "InvalidAccessKeyId", **target)
    until(client_of(store, rotated).get_object, "", **target)

    shown(store, "policy", "set", "reads", file_of(tmp_path, allow("s3:PutObject")))
    until(client_of(store, rotated).get_object, "AccessDenied", **target)
    refused = admin(store, "user", "delete", "alice")
    assert (refused.returncode, "DeleteConflict" in refused.stderr) == (1, True)
    assert shown(store, "user", "delete", "alice", "--force") == "done\n"
    until(client_of(store, rotated).get_object, "InvalidAccessKeyId", **target)
    assert shown(store, "policy", "delete", "reads") == "done\n"
    assert "no users" in shown(store, "user", "list")


def test_a_service_account_is_limited_by_its_own_policy(store: Up, tmp_path: Path) -> None:
    shown(store, "user", "create", "app")
    shown(store, "user", "attach", "app", "readwrite")
    policy = file_of(tmp_path, allow("s3:GetObject"))
    made = answer(
        store, "key", "create", "app", "--service", "--policy", policy, "--expires", "12h"
    )
    assert made["key"]["expires_ms"] > made["key"]["created_ms"]
    s3 = client_of(store, made)
    until(s3.get_object, "", Bucket="things", Key="k")
    assert code(s3.put_object, Bucket="things", Key="k") == "AccessDenied"
    # What names its user in a bucket policy does not open its limit.
    owner = client(store, store.credentials.access_key, store.credentials.secret_key)
    owner.put_bucket_policy(
        Bucket="things",
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Allow",
                    "Principal": {"AWS": "arn:aws:iam::000000000000:user/app"},
                    "Action": "s3:*",
                    "Resource": "arn:aws:s3:::things/*",
                },
            }
        ),
    )
    assert code(s3.put_object, Bucket="things", Key="k") == "AccessDenied"
    shown(store, "key", "limit", made["key"]["access_key"])
    until(s3.put_object, "", Bucket="things", Key="k", Body=b"x")
    shown(store, "user", "disable", "app")
    until(s3.get_object, "InvalidAccessKeyId", Bucket="things", Key="k")
    shown(store, "user", "delete", "app", "--force")
    owner.delete_bucket_policy(Bucket="things")


def test_groups_and_roles(store: Up, tmp_path: Path) -> None:
    shown(store, "group", "create", "readers")
    shown(store, "user", "create", "bob")
    assert "bob" in shown(store, "group", "add", "readers", "bob")
    policy = file_of(tmp_path, allow("s3:GetObject"))
    for noun, name in (("group", "readers"), ("user", "bob")):
        assert "own" in shown(store, noun, "put-policy", name, "own", policy)
        shown(store, noun, "attach", name, "readonly")
        shown(store, noun, "detach", name, "readonly")
        assert shown(store, noun, "delete-policy", name, "own") == "done\n"
    trusting = file_of(tmp_path, trust({"AWS": "arn:aws:iam::000000000000:user/bob"}))
    shown(store, "role", "create", "backup", trusting, "--max-session-seconds", "7200")
    assert "7200 s" in shown(store, "role", "show", "backup")
    shown(store, "role", "boundary", "backup", "--policy", "AmazonS3ReadOnlyAccess")
    assert answer(store, "role", "boundary", "backup")["boundary"] == ""
    assert [each["name"] for each in answer(store, "role", "list")["roles"]] == ["backup"]
    shown(store, "role", "delete", "backup")
    shown(store, "group", "remove", "readers", "bob")
    shown(store, "group", "delete", "readers")
    shown(store, "user", "delete", "bob")


def test_a_user_operates_the_store_as_its_policies_allow(store: Up, tmp_path: Path) -> None:
    shown(store, "user", "create", "watcher")
    policy = file_of(tmp_path, allow("s3gw:GetSummary", "s3gw:ListNodes"))
    shown(store, "user", "put-policy", "watcher", "watching", policy)
    made = answer(store, "key", "create", "watcher")
    keys = {
        "S3GW_ROOT_ACCESS_KEY": made["key"]["access_key"],
        "S3GW_ROOT_SECRET_KEY": made["secret_key"],
    }
    wait_until(
        lambda: all(admin(store, "summary", **keys).returncode == 0 for _ in range(3)),
        what="the user is known",
    )
    refused = admin(store, "user", "list", **keys)
    assert refused.returncode == 1
    assert "s3gw:ListUsers" in refused.stderr
    assert made["secret_key"] not in refused.stderr + refused.stdout
    shown(store, "user", "delete", "watcher", "--force")


@pytest.mark.parametrize(
    "command",
    [
        ("user", "create"),
        ("user", "create", "x", "--tag", "novalue"),
        ("policy", "create", "x", "/no/such/file"),
        ("key", "create", "x", "--expires", "soon"),
        ("role", "nonsense"),
        ("group",),
    ],
)
def test_commands_that_make_no_sense(store: Up, command: tuple[str, ...]) -> None:
    done = admin(store, *command)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_refusals_are_one_line(store: Up, tmp_path: Path) -> None:
    for command in (
        ("user", "show", "nobody"),
        ("user", "create", "a b"),
        ("policy", "create", "x", file_of(tmp_path, "{")),
        ("key", "delete", "AKIANOBODYNOBODY0000"),
    ):
        done = admin(store, *command)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
