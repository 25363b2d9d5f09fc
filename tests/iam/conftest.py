"""Stores on both engines for the IAM and STS clients of boto3, and an identity provider."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from compose.local import Cluster, Credentials, Up, running, wait_until
from tests.iam.oidc_provider import Provider

REGION = "us-east-1"
ACCOUNT = "000000000000"
AGREEMENT_SECONDS_MAX = 30.0  # of a machine that does much else


@dataclass(frozen=True)
class Keys:
    """Credentials of somebody."""

    access_key: str
    secret_key: str
    token: str | None = None

    @classmethod
    def of(cls, reply: dict[str, Any]) -> Keys:
        """Those in an answer of STS."""
        found = reply["Credentials"]
        return cls(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])


@dataclass(frozen=True)
class Server:
    """A store, and clients of it."""

    endpoints: list[str]
    root: Keys
    provider: Provider

    def client(
        self, service: str, keys: Keys | None = None, gateway: int = -1, **config: Any
    ) -> Any:
        """A boto3 client of root, or of somebody else, without retries."""
        keys = keys or self.root
        return _client(service, self.endpoints[gateway], keys, tuple(config.items()))


_SESSION = boto3.session.Session()


@lru_cache(maxsize=200)
def _client(service: str, endpoint: str, keys: Keys, config: tuple[tuple[str, Any], ...]) -> Any:
    return _SESSION.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
        config=Config(retries={"total_max_attempts": 1}, **dict(config)),
    )


@contextmanager
def _serve(backend: str, directory: Path) -> Iterator[Server]:
    provider = Provider(directory)
    credentials = Credentials.generate()
    common: Any = {
        "credentials": credentials,
        "environment": {
            "SSL_CERT_FILE": str(provider.ca),
            "S3GW_DOMAINS": "s3.test",
            "S3GW_PROCESSES": "1",  # so that each process can be asked: one per gateway
        },
    }
    store: Up | Cluster
    if backend == "sqlite":
        store = Up(directory / "store", **common)
    else:
        store = Cluster(directory / "store", nodes=6, gateways=2, **common)
    root = Keys(credentials.access_key, credentials.secret_key)
    with running(store):
        yield Server(store.endpoints, root, provider)
    provider.close()


@pytest.fixture(scope="session", params=["sqlite", "etcd"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each form of the store."""
    with _serve(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One store, for what does not touch the engine."""
    with _serve("sqlite", tmp_path_factory.mktemp("one")) as started:
        yield started


def fresh(prefix: str = "t") -> str:
    """A name that nobody has."""
    return f"{prefix}-{secrets.token_hex(6)}"


def policy(*actions: str, resource: Any = "*", effect: str = "Allow", condition: Any = None) -> str:
    """A policy of an identity, of one statement."""
    statement: dict[str, Any] = {"Effect": effect, "Action": list(actions), "Resource": resource}
    if condition is not None:
        statement["Condition"] = condition
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(principal: Any, *actions: str, condition: Any = None) -> str:
    """A trust policy of one statement."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": principal,
        "Action": list(actions) or ["sts:AssumeRole"],
    }
    if condition is not None:
        statement["Condition"] = condition
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@contextmanager
def refused(code: str, status: int) -> Iterator[None]:
    """The block must be answered with exactly this error."""
    with pytest.raises(ClientError) as caught:
        yield
    response = caught.value.response
    found = (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"])
    assert found == (code, status), caught.value


def until(holds: Callable[[], Any], what: str) -> None:
    """Wait until every process of the store has seen a change: three times in a row."""

    def seen() -> bool:
        return all(_quietly(holds) for _ in range(3))

    wait_until(seen, what=what, seconds_max=AGREEMENT_SECONDS_MAX)


def _quietly(holds: Callable[[], Any]) -> bool:
    try:
        return bool(holds())
    except (ClientError, pytest.fail.Exception):  # the latter: what should be refused is not
        return False


def make_user(server: Server, *documents: str, name: str | None = None) -> tuple[str, Keys]:
    """A user with inline policies and a key that works on every process."""
    iam = server.client("iam")
    name = name or fresh("user")
    iam.create_user(UserName=name)
    for number, document in enumerate(documents):
        iam.put_user_policy(UserName=name, PolicyName=f"p{number}", PolicyDocument=document)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    keys = Keys(made["AccessKeyId"], made["SecretAccessKey"])
    for gateway in range(len(server.endpoints)):
        sts = server.client("sts", keys, gateway)
        until(lambda sts=sts: sts.get_caller_identity(), f"the key of {name}")  # type: ignore[misc]
    return name, keys
