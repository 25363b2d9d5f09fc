"""How applications get their credentials: the aws cli and the SDK's own providers of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.iam.conftest import ACCOUNT, REGION, Keys, Server, fresh, make_user, policy, trust
from tests.iam.oidc_provider import CLIENT


def environment(server: Server, keys: Keys | None = None) -> dict[str, str]:
    found = {
        "AWS_ENDPOINT_URL": server.endpoints[0],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }
    if keys is not None:
        found |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
    return found


def aws(environment: dict[str, str], *words: str) -> Any:
    """What the aws cli of this project answers."""
    binary = Path(sys.executable).with_name("aws")
    done = subprocess.run(
        [binary, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_the_aws_cli_manages_users_and_assumes_roles(one_server: Server) -> None:
    outside = environment(one_server, one_server.root)
    user, role = fresh("user"), fresh("role")
    made = aws(outside, "iam", "create-user", "--user-name", user)
    document = policy("sts:AssumeRole")
    named = ("--user-name", user, "--policy-name", "p", "--policy-document", document)
    aws(outside, "iam", "put-user-policy", *named)
    key = aws(outside, "iam", "create-access-key", "--user-name", user)["AccessKey"]
    trusted = trust({"AWS": made["User"]["Arn"]})
    named = ("--role-name", role, "--assume-role-policy-document", trusted)
    arn = aws(outside, "iam", "create-role", *named)["Role"]["Arn"]
    inside = environment(one_server, Keys(key["AccessKeyId"], key["SecretAccessKey"]))
    words = ("sts", "assume-role", "--role-arn", arn, "--role-session-name", "cli")
    found = aws(inside, *words)
    assert found["AssumedRoleUser"]["Arn"].endswith(f"assumed-role/{role}/cli")
    listed = aws(outside, "iam", "list-users", "--query", "Users[].UserName")
    assert user in listed


def test_a_profile_with_a_role_assumes_it_by_itself(
    one_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, keys = make_user(one_server)
    role = fresh("role")
    iam = one_server.client("iam")
    trusted = trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/{name}"})
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trusted)
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=policy("s3:*"))
    config = tmp_path / "config"
    config.write_text(
        f"[profile base]\naws_access_key_id={keys.access_key}\n"
        f"aws_secret_access_key={keys.secret_key}\n"
        f"[profile with-role]\nsource_profile=base\nrole_session_name=profile\n"
        f"role_arn=arn:aws:iam::{ACCOUNT}:role/{role}\n"
    )
    for variable, text in environment(one_server).items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    session = boto3.session.Session(profile_name="with-role")
    arn = session.client("sts").get_caller_identity()["Arn"]
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/profile"
    session.client("s3").list_buckets()


def test_a_token_file_of_a_cluster_is_exchanged_by_itself(
    one_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam, issuer = one_server.client("iam"), one_server.provider.issuer
    provider = iam.create_open_id_connect_provider(Url=issuer.url, ClientIDList=[CLIENT])
    role = fresh("role")
    trusted = trust(
        {"Federated": provider["OpenIDConnectProviderArn"]}, "sts:AssumeRoleWithWebIdentity"
    )
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trusted)
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=policy("s3:*"))
    token = tmp_path / "token"
    token.write_text(issuer.token())
    for variable, text in environment(one_server).items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", f"arn:aws:iam::{ACCOUNT}:role/{role}")
    monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "pod")
    session = boto3.session.Session()
    arn = session.client("sts").get_caller_identity()["Arn"]
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/pod"
    bucket = fresh("b")
    session.client("s3").create_bucket(Bucket=bucket)
    iam.delete_open_id_connect_provider(
        OpenIDConnectProviderArn=provider["OpenIDConnectProviderArn"]
    )
