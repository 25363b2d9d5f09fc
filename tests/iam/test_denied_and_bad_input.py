"""Every action, generated from the table: who may not, who is nobody, and input that is none."""

from typing import Any

import pytest

from s3gw.iam.actions import ACTIONS, REASONS, STS, Action
from s3gw.iam.parameters import SPECIFICATIONS, ListOf
from tests.iam.conftest import ACCOUNT, Keys, Server, make_user, policy
from tests.iam.raw_query import Answer, ask

TEXTS = {
    "AccessKeyId": "AKIAAAAAAAAAAAAAAAAA",
    "ActionNames": "s3:GetObject",
    "AssumeRolePolicyDocument": "{}",
    "Name": "name",
    "OpenIDConnectProviderArn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/idp.example.com",
    "PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/boundary",
    "PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/some-policy",
    "PolicyDocument": "{}",
    "PolicyInputList": "{}",
    "PolicySourceArn": f"arn:aws:iam::{ACCOUNT}:user/somebody",
    "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/some-role",
    "Status": "Active",
    "ThumbprintList": "0" * 40,
    "Url": "https://idp.example.com",
    "VersionId": "v1",
    "WebIdentityToken": "x.y.z",
}
ANYBODY = frozenset({"GetCallerIdentity", "GetSessionToken"})


def good(action: Action) -> dict[str, str]:
    """The required parameters, well-formed."""
    found: dict[str, str] = {}
    for name in (*action.required, *({"UserName"} & action.names)):
        text = TEXTS.get(name, "somebody")
        specification = SPECIFICATIONS[name]
        if not isinstance(specification, ListOf):
            found[name] = text
        elif specification.fields:
            found |= {f"{name}.member.1.{field}": "x" for field in specification.required}
        else:
            found[f"{name}.member.1"] = text
    return found


@pytest.fixture(scope="module")
def powerless(one_server: Server) -> Keys:
    """A user who may use all of S3 and nothing else."""
    return make_user(one_server, policy("s3:*"))[1]


def call(server: Server, keys: Keys | None, action: Action, parameters: dict[str, str]) -> Answer:
    return ask(server.endpoints[0], keys, action.name, action.service.name, **parameters)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_a_user_without_the_permission_is_denied(
    one_server: Server, powerless: Keys, action: Action
) -> None:
    answer = call(one_server, powerless, action, good(action))
    if action.name in ANYBODY:
        assert answer.status == 200
    elif not action.signed:
        assert (answer.status, answer.code) == (400, "InvalidIdentityToken")
    else:
        assert (answer.status, answer.code) == (403, "AccessDenied"), answer.body
        assert f"perform: {action.iam_name} on resource: " in answer.text("Message")
    assert answer.text("RequestId") == answer.headers["x-amzn-requestid"]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_nobody_is_told_to_sign(one_server: Server, action: Action) -> None:
    answer = call(one_server, None, action, good(action))
    if action.signed:
        assert (answer.status, answer.code) == (403, "MissingAuthenticationToken")
    else:
        assert answer.code == "InvalidIdentityToken"


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_credentials_of_get_session_token_are_good_for_little(
    one_server: Server, powerless: Keys, action: Action
) -> None:
    session = Keys.of(one_server.client("sts", powerless).get_session_token())
    answer = call(one_server, session, action, good(action))
    if action.name == "GetCallerIdentity":
        assert answer.status == 200
    elif action.signed:
        assert (answer.status, answer.code) == (403, "AccessDenied")


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_a_parameter_that_is_missing_or_unknown_is_named(
    one_server: Server, action: Action
) -> None:
    for name in action.required:
        left = {key: value for key, value in good(action).items() if key.split(".")[0] != name}
        answer = call(one_server, one_server.root, action, left)
        assert (answer.status, answer.code) == (400, "ValidationError")
        assert name.lower() in answer.text("Message").lower()
    for unknown in ("Unknown", "SerialNumber", "Member.member.1"):
        answer = call(one_server, one_server.root, action, {**good(action), unknown: "x"})
        assert (answer.status, answer.code) == (400, "ValidationError")
        assert unknown.split(".")[0] in answer.text("Message")


def bad_values(name: str) -> list[tuple[str, str]]:
    """Names and values that are refused wherever the parameter is taken."""
    specification: Any = SPECIFICATIONS[name]
    if not isinstance(specification, ListOf):
        found = [(name, value) for value in specification.samples() if len(value) < 150_000]
        return [*found, (f"{name}.member.1", "x")]
    found = [(name, "x"), (f"{name}.1", "x"), (f"{name}.member.0", "x"), (f"{name}.member.x", "x")]
    if specification.item is not None:
        return found + [(f"{name}.member.1", value) for value in specification.item.samples()]
    return [*found, (f"{name}.member.1.Nothing", "x"), (f"{name}.member.1", "x")]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_values_that_are_none_are_refused_before_anything_is_done(
    one_server: Server, action: Action
) -> None:
    for name in action.names:
        for key, value in bad_values(name):
            kept = {k: v for k, v in good(action).items() if k.split(".")[0] != name}
            answer = call(one_server, one_server.root, action, {**kept, key: value})
            assert (answer.status, answer.code) == (400, "ValidationError"), (key, value[:50])


@pytest.mark.parametrize("name", sorted(REASONS))
def test_what_is_not_built_says_so(one_server: Server, name: str) -> None:
    service = "sts" if name in STS_ONLY else "iam"
    answer = ask(one_server.endpoints[0], one_server.root, name, service)
    assert (answer.status, answer.code) == (501, "NotImplemented")
    assert REASONS[name] in answer.text("Message")
    assert ask(one_server.endpoints[0], None, name, service).status == 403


STS_ONLY = {
    "AssumeRoleWithSAML",
    "AssumeRoot",
    "DecodeAuthorizationMessage",
    "GetAccessKeyInfo",
    "GetDelegatedAccessToken",
    "GetWebIdentityToken",
}


def test_the_names_of_sts_are_those_of_its_model() -> None:
    import botocore.session

    model = botocore.session.get_session().get_service_model("sts")
    built = {action.name for action in ACTIONS if action.service is STS}
    assert set(model.operation_names) - built == STS_ONLY
