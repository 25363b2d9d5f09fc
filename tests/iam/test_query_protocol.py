"""The query protocol itself: what is one of its requests, its limits, and its signatures."""

import random
import urllib.parse
from typing import Any

import botocore.session
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.iam.conftest import REGION, Keys, Server, fresh, make_user, policy, refused
from tests.iam.raw_query import FORM, Answer, ask, encoded, send

IDENTITY = {"Action": "GetCallerIdentity", "Version": "2011-06-15"}
USERS = {"Action": "ListUsers", "Version": "2010-05-08"}


@pytest.fixture
def root(one_server: Server) -> Keys:
    return one_server.root


@pytest.fixture
def endpoint(one_server: Server) -> str:
    return one_server.endpoints[0]


def presigned(endpoint: str, keys: Keys, service: str, form: dict[str, str]) -> str:
    """The target of a URL as tokens of clusters (`aws eks get-token`) are made."""
    url = f"{endpoint}/?{urllib.parse.urlencode(form)}"
    request = AWSRequest("GET", url)
    credentials = Credentials(keys.access_key, keys.secret_key, keys.token)
    SigV4QueryAuth(credentials, service, REGION, expires=60).add_auth(request)
    return str(request.url).removeprefix(endpoint)


def get(endpoint: str, target: str) -> Answer:
    return send(endpoint, b"", None, method="GET", target=target, headers={"content-type": "x"})


def test_an_answer_has_the_form_of_the_protocol(endpoint: str, root: Keys) -> None:
    answer = ask(endpoint, root, "GetCallerIdentity", "sts")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/xml"
    assert b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011' in answer.body
    assert answer.text("RequestId") == answer.headers["x-amzn-requestid"]
    error = ask(endpoint, root, "GetUser", UserName="nobody")
    assert (error.status, error.text("Type"), error.code) == (404, "Sender", "NoSuchEntity")


def test_a_presigned_url_proves_who_made_it(one_server: Server, endpoint: str, root: Keys) -> None:
    _, user = make_user(one_server)
    session = Keys.of(one_server.client("sts", user).get_session_token())
    for keys in (root, user, session):
        answer = get(endpoint, presigned(endpoint, keys, "sts", IDENTITY))
        assert (answer.status, answer.text("Account")) == (200, "000000000000")
    target = presigned(endpoint, user, "sts", IDENTITY)
    for changed in (
        target.replace("GetCallerIdentity", "GetSessionToken"),
        target.replace("Expires=60", "Expires=61"),
        target + "&DurationSeconds=900",
    ):
        assert get(endpoint, changed).code == "SignatureDoesNotMatch"


def test_a_signature_for_one_service_is_none_for_another(endpoint: str, root: Keys) -> None:
    for service, form in (("s3", USERS), ("sts", USERS), ("iam", IDENTITY), ("s3", IDENTITY)):
        answer = send(endpoint, encoded(form), root, service=service)
        assert (answer.status, answer.code) == (403, "IncompleteSignature")
        target = presigned(endpoint, root, service, form)
        assert get(endpoint, target).code == "IncompleteSignature"
    for service in ("iam", "sts"):
        answer = send(endpoint, b"", root, service=service, method="GET", headers=PLAIN)
        assert answer.status in (400, 403)
        assert answer.code == "AuthorizationHeaderMalformed"


PLAIN = {"content-type": "text/plain"}


def test_the_body_is_signed_whatever_the_client_says_of_it(endpoint: str, root: Keys) -> None:
    form = {"Action": "CreateUser", "Version": "2010-05-08", "UserName": fresh("user")}
    other = encoded({**form, "UserName": fresh("other")})
    answer = send(endpoint, encoded(form), root, sent=other)
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")
    assert ask(endpoint, root, "GetUser", UserName=form["UserName"]).status == 404


def test_global_services_are_signed_for_their_own_region_too(endpoint: str, root: Keys) -> None:
    assert send(endpoint, encoded(USERS), root, region="us-east-1").status == 200
    answer = send(endpoint, encoded(USERS), root, region="eu-central-1")
    assert answer.code == "IncompleteSignature"


def test_requests_of_s3_are_not_taken(one_server: Server, endpoint: str, root: Keys) -> None:
    s3 = one_server.client("s3")
    bucket = fresh("b")
    s3.create_bucket(Bucket=bucket)
    assert bucket in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    # A parameter of S3's own request does not make it one of the query protocol.
    listing = send(endpoint, b"", root, service="s3", method="GET", target="/?Action=ListUsers")
    assert (listing.status, b"ListAllMyBucketsResult" in listing.body) == (200, True)
    plain = send(endpoint, b"", root, service="s3", headers={"content-type": "text/plain"})
    assert (plain.status, plain.code) == (405, "MethodNotAllowed")
    for target in (f"/{bucket}", f"/{bucket}/key", "//"):
        answer = send(endpoint, encoded(USERS), root, service="s3", target=target)
        assert b"ErrorResponse" not in answer.body
        assert answer.status in (400, 404, 405, 411, 412)
    hosted = {"host": f"{bucket}.s3.test"}
    answer = send(endpoint, encoded(USERS), root, service="s3", headers=hosted)
    assert b"ErrorResponse" not in answer.body
    put = send(endpoint, encoded(USERS), root, service="iam", method="PUT")
    assert b"ErrorResponse" not in put.body


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"", "MissingAction", 400),
        (b"Version=2010-05-08", "MissingAction", 400),
        (b"Action=", "InvalidAction", 400),
        (b"Action=Nothing&Version=2010-05-08", "InvalidAction", 400),
        (b"Action=ListUsers&Version=2011-06-15", "InvalidAction", 400),
        (b"Action=ListUsers&Version=2010-05-08&Action=ListRoles", "MalformedQueryString", 400),
        (b"Action=ListUsers&MaxItems=%zz", "MalformedQueryString", 400),
        (b"Action=ListUsers&MaxItems=%", "MalformedQueryString", 400),
        (b"Action=ListUsers&Marker=%ff", "MalformedQueryString", 400),
        (b"&".join(b"a%d=1" % n for n in range(2001)), "MalformedQueryString", 400),
        (b"Action=ListUsers&Marker=" + b"a" * 600_000, "RequestEntityTooLarge", 413),
        (b"Action=GetUser&UserName=%00", "ValidationError", 400),
        (b"Action=" + b"x" * 100_000, "InvalidAction", 400),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_forms_that_are_none_are_refused(
    endpoint: str, root: Keys, body: bytes, code: str, status: int
) -> None:
    answer = send(endpoint, body, root)
    assert (answer.status, answer.code) == (status, code)
    assert len(answer.body) < 2000


def test_a_form_of_half_a_megabyte_is_read(endpoint: str, root: Keys) -> None:
    document = "%7B%7D" + "%20" * 150_000
    body = b"Action=CreatePolicy&PolicyName=p&PolicyDocument=" + document.encode()
    answer = send(endpoint, body, root)
    assert (answer.status, answer.code) == (400, "ValidationError")
    assert "131072" in answer.text("Message")


@pytest.mark.parametrize("name", ["\u00e4\u00e4\u00e4", "\u0664\u0664\u0664"])
def test_names_are_of_ascii(endpoint: str, root: Keys, name: str) -> None:
    for parameter, action in (("UserName", "GetUser"), ("RoleName", "GetRole")):
        answer = ask(endpoint, root, action, **{parameter: name})
        assert (answer.status, answer.code) == (400, "ValidationError")
    form = {"RoleArn": "arn:aws:iam::000000000000:role/r", "RoleSessionName": name}
    assert ask(endpoint, root, "AssumeRole", "sts", **form).code == "ValidationError"


def test_questions_about_policies_are_bounded(one_server: Server) -> None:
    iam = one_server.client("iam")
    statement = '{"Effect":"Allow","Action":"s3:*","Resource":"*"}'
    document = '{"Version":"2012-10-17","Statement":[' + ",".join([statement] * 1000) + "]}"
    questions = {
        "PolicyInputList": [document],
        "ActionNames": ["s3:GetObject"],
        "ResourceArns": [f"arn:aws:s3:::b/{n}" for n in range(900)],
    }
    with refused("ValidationError", 400):
        iam.simulate_custom_policy(**questions, MaxItems=600)
    reply = iam.simulate_custom_policy(**questions, MaxItems=10)
    assert (len(reply["EvaluationResults"]), reply["IsTruncated"]) == (10, True)


def test_the_version_may_be_left_out_of_a_form(endpoint: str, root: Keys) -> None:
    assert send(endpoint, b"Action=ListUsers", root).status == 200


def test_texts_come_back_as_they_were_sent(endpoint: str, root: Keys) -> None:
    name, value = fresh("user"), "a <b> & 'c' \u00e4+ /@"
    tag = {"Tags.member.1.Key": "k", "Tags.member.1.Value": "x  y=+@"}
    assert ask(endpoint, root, "CreateUser", UserName=name, **tag).status == 200
    assert ask(endpoint, root, "GetUser", UserName=name).text("Value") == "x  y=+@"
    wrong = ask(endpoint, root, "GetUser", UserName=value)
    assert value in wrong.text("Message")


def test_no_secret_is_in_an_error(one_server: Server, endpoint: str) -> None:
    name, keys = make_user(one_server, policy("iam:*"))
    for form in (
        {"Action": "CreateAccessKey", "Version": "2010-05-08", "UserName": name, "Status": "x"},
        {"Action": "Nothing", "Version": "2010-05-08"},
    ):
        answer = send(endpoint, encoded(form), keys)
        assert keys.secret_key.encode() not in answer.body


def test_no_form_makes_the_server_fail(endpoint: str, root: Keys) -> None:
    """Random forms, of words that mean something: an answer below 500 or an honest 501."""
    draw = random.Random(7)
    model: Any = botocore.session.get_session().get_service_model("iam")
    actions = [*model.operation_names, "Nothing"]
    words = ["Tags.member.1.Key", "Tags.member.1.Value", "Tags.member.2", "Tags", "MaxItems"]
    words += ["UserName", "RoleName", "GroupName", "PolicyArn", "Path", "Marker", "Url", "Version"]
    words += ["PolicyDocument", "AssumeRolePolicyDocument", "PolicyName", "NewPath", "Description"]
    texts = ["", "x", "/", "*", "a" * 300, "\u00e4", "2010-05-08", "{}", "[]", '{"Statement":1}']
    texts += ["arn:aws:iam::000000000000:policy/x", "arn:aws:iam::aws:policy/readonly", "-1", "\0"]
    for _ in range(400):
        form = {draw.choice(words): draw.choice(texts) for _ in range(draw.randrange(6))}
        form["Action"] = draw.choice(actions)
        answer = send(endpoint, encoded(form), root)
        assert answer.status < 500 or answer.code == "NotImplemented", (form, answer.body)


def test_a_body_that_is_cut_off_is_no_request(endpoint: str, root: Keys) -> None:
    import socket
    from urllib.parse import urlsplit

    where = urlsplit(endpoint)
    with socket.create_connection((where.hostname, where.port or 80), timeout=10) as connection:
        head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\ncontent-length: 99\r\n\r\n"
        connection.sendall(head.encode() + b"Action=ListUsers")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1000):
            pass
    assert ask(endpoint, root, "ListUsers").status == 200
