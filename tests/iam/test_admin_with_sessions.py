"""The admin port with temporary credentials: those of roles, as far as the role may."""

import pytest
from botocore.config import Config

from compose.local import Credentials, Up, running
from tests import sdk
from tests.iam.conftest import ACCOUNT, Keys, policy, trust, until
from tests.iam.raw_query import Answer, send


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    credentials = Credentials.generate()
    up = Up(
        tmp_path_factory.mktemp("up") / "s",
        credentials=credentials,
        environment={"S3GW_PROCESSES": "1"},
    )
    with running(up):
        yield up, Keys(credentials.access_key, credentials.secret_key)


def client(up: Up, service: str, keys: Keys):
    return sdk.client(
        service,
        endpoint_url=up.endpoints[0],
        region_name="us-east-1",
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
        config=Config(retries={"total_max_attempts": 1}),
    )


def nodes(up: Up, keys: Keys) -> Answer:
    headers = {"content-type": "application/json"}
    return send(
        up.admin, b"", keys, service="s3gw", method="GET", target="/admin/nodes", headers=headers
    )


def test_credentials_of_roles_are_good_and_others_are_not(store: tuple[Up, Keys]) -> None:
    up, root = store
    iam = client(up, "iam", root)
    iam.create_user(UserName="ada")
    iam.put_user_policy(UserName="ada", PolicyName="p", PolicyDocument=policy("*"))
    made = iam.create_access_key(UserName="ada")["AccessKey"]
    ada = Keys(made["AccessKeyId"], made["SecretAccessKey"])
    until(lambda: client(up, "sts", ada).get_caller_identity(), "the key")
    assert nodes(up, root).status == 200
    assert nodes(up, ada).status == 200
    for keys in (root, ada):
        session = Keys.of(client(up, "sts", keys).get_session_token())
        assert nodes(up, session).status == 403
    federated = client(up, "sts", ada).get_federation_token(Name="bob", Policy=policy("*"))
    assert nodes(up, Keys.of(federated)).status == 403
    for name, document, status in (("yes", policy("*"), 200), ("no", policy("s3:*"), 403)):
        trusted = trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/ada"})
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
        reply = client(up, "sts", ada).assume_role(RoleArn=arn, RoleSessionName="admin")
        assert nodes(up, Keys.of(reply)).status == status
        limit = policy("s3:*")
        reply = client(up, "sts", ada).assume_role(
            RoleArn=arn, RoleSessionName="admin", Policy=limit
        )
        assert nodes(up, Keys.of(reply)).status == 403
