"""Signatures in headers: what is refused, with which code, and that anonymous is not an error."""

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import boto3
import botocore.config
import pytest

from compose.s3_http import S3Http, Signer
from tests.compat.forms import Poster


def other(server, **changes):
    return S3Http(
        server.endpoint,
        dataclasses.replace(Signer(server.access_key, server.secret_key), **changes),
    )


@pytest.fixture
def key(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret")
    return f"/{bucket}/k"


def test_a_wrong_secret_is_refused(server, key):
    reply = other(server, secret_key="wrong").request("GET", key)
    assert (reply.status, reply.code) == (403, "SignatureDoesNotMatch")
    assert b"secret" not in reply.body


def test_an_unknown_access_key_is_refused(server, key):
    reply = other(server, access_key="AKIDUNKNOWN").request("GET", key)
    assert (reply.status, reply.code) == (403, "InvalidAccessKeyId")


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_clock_more_than_15_minutes_off_is_refused(http, key, minutes):
    reply = http.request("GET", key, when=datetime.now(UTC) + timedelta(minutes=minutes))
    assert (reply.status, reply.code) == (403, "RequestTimeTooSkewed")


@pytest.mark.parametrize("minutes", [-14, 14])
def test_a_clock_less_than_15_minutes_off_is_accepted(http, key, minutes):
    reply = http.request("GET", key, when=datetime.now(UTC) + timedelta(minutes=minutes))
    assert reply.status == 200


def test_the_scope_of_another_region_is_refused_with_the_right_one(server, key):
    reply = other(server, region="eu-central-1").request("GET", key)
    assert (reply.status, reply.code) == (400, "AuthorizationHeaderMalformed")
    assert b"<Region>us-east-1</Region>" in reply.body
    # The answer to a HEAD has no body to say it in; SDKs look here.
    reply = other(server, region="eu-central-1").request("HEAD", key)
    assert (reply.status, reply["x-amz-bucket-region"]) == (400, "us-east-1")


@pytest.mark.parametrize("operation", ["head_object", "get_object"])
def test_boto3_finds_the_right_region_by_itself(server, key, operation):
    config = botocore.config.Config(retries={"total_max_attempts": 2})
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="eu-central-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=config,
    )
    bucket, _, name = key.lstrip("/").partition("/")
    assert getattr(client, operation)(Bucket=bucket, Key=name)["ETag"]


def test_a_session_token_beside_keys_of_no_session_is_refused(http, key):
    reply = http.request("GET", key, headers={"x-amz-security-token": "x"})
    assert (reply.status, reply.code) == (400, "InvalidToken")


def _signed(http, key, **headers):
    return http.signed_headers("GET", key, "", headers, hashlib.sha256(b"").hexdigest())[0]


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=x",
        "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=00",
    ],
)
def test_a_malformed_authorization_is_refused(http, key, authorization):
    headers = {**_signed(http, key), "authorization": authorization}
    reply = http.send("GET", key, headers=headers)
    assert (reply.status, reply.code) == (400, "AuthorizationHeaderMalformed")


@pytest.mark.parametrize("authorization", ["Basic dXNlcjpwdw==", "Bearer token", "x"])
def test_another_scheme_is_refused(http, key, authorization):
    reply = http.send("GET", key, headers={"authorization": authorization})
    assert (reply.status, reply.code) == (400, "InvalidArgument")


def test_a_changed_header_path_or_query_is_refused(http, key):
    signed = _signed(http, key, **{"x-amz-meta-a": "1"})
    attempts = [
        http.send("GET", key, headers={**signed, "x-amz-meta-a": "2"}),
        http.send("GET", key + "x", headers=signed),
        http.send("GET", key, "response-content-type=a", headers=signed),
        http.send("HEAD", key, headers=signed),
    ]
    assert [reply.status for reply in attempts] == [403] * len(attempts)


def test_an_unsigned_amz_header_is_refused(http, key):
    signed = _signed(http, key)
    reply = http.send("GET", key, headers={**signed, "x-amz-checksum-mode": "ENABLED"})
    assert reply.status == 403


def test_spaces_inside_and_around_header_values_are_folded(http, key):
    reply = http.request("GET", key, headers={"x-amz-meta-a": "  two   spaces "})
    assert reply.status == 200


def test_query_parameters_are_signed_sorted_and_with_empty_values(http, bucket):
    reply = http.request("GET", f"/{bucket}", "prefix=&list-type=2&delimiter=%2F&max-keys=3")
    assert reply.status == 200
    assert http.request("GET", f"/{bucket}", "location").status == 200
    assert http.request("GET", f"/{bucket}", "location=").status == 200


def test_a_signed_request_without_the_hash_of_its_body_is_refused(http, key):
    headers = _signed(http, key)
    del headers["x-amz-content-sha256"]
    reply = http.send("GET", key, headers=headers)
    assert reply.status in (400, 403)


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("GET", "/", "", b""),
        ("GET", "/{bucket}", "", b""),
        ("GET", "/{bucket}", "location", b""),
        ("GET", "/{bucket}/k", "", b""),
        ("PUT", "/{bucket}/new", "", b"x"),
        ("DELETE", "/{bucket}/k", "", b""),
        ("POST", "/{bucket}/new", "uploads", b""),
        ("PUT", "/another-new-bucket", "", b""),
    ],
)
def test_anonymous_requests_are_denied_not_called_unsigned(http, key, method, path, query, body):
    bucket = key.split("/")[1]
    reply = http.send(method, path.format(bucket=bucket), query, body=body)
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert http.request("GET", key).body == b"secret"


DEBUG = {"x-s3gw-debug": "explain"}


def explanation(reply):
    assert (reply.status, reply.code) == (403, "SignatureDoesNotMatch")
    return reply.body.partition(b"<Explanation>")[2].partition(b"</Explanation>")[0].decode()


def test_root_is_told_which_part_was_changed_on_the_way(http, key):
    signed, _ = http.signed_headers("GET", key, headers={**DEBUG, "host": "s3.example.com"})
    came = {**signed, "host": http.netloc, "x-forwarded-host": "s3.example.com"}
    text = explanation(http.send("GET", key, headers=came))
    assert text.startswith("The signature is right for the header host: 's3.example.com'")
    signed, _ = http.signed_headers("GET", key, headers=DEBUG)
    text = explanation(http.send("PUT", key, headers=signed))
    assert text.startswith("The signature is right for the method 'GET'")
    text = explanation(http.send("GET", key, "prefix=a", headers=signed))
    assert "The parameter prefix was added after signing" in text


def test_nobody_is_told_who_did_not_sign_that_he_asks(http, key):
    signed, _ = http.signed_headers("GET", key)
    assert explanation(http.send("PUT", key, headers={**signed, **DEBUG})) == ""
    assert explanation(http.send("PUT", key, headers=signed)) == ""


def test_a_wrong_secret_is_not_told_from_a_right_one_but_by_a_fit(server, key):
    reply = other(server, secret_key="wrong").request("GET", key, headers=DEBUG)
    assert explanation(reply).startswith("None of the ")
    assert server.secret_key.encode() not in reply.body


def test_an_answer_without_a_body_explains_itself_in_a_header(http, key):
    signed, _ = http.signed_headers("GET", key, headers=DEBUG)
    reply = http.send("HEAD", key, headers=signed)
    assert (reply.status, reply.body) == (403, b"")
    assert reply["x-s3gw-explanation"].startswith("The signature is right for the method 'GET'")
    signed, _ = http.signed_headers("GET", key)
    assert "x-s3gw-explanation" not in http.send("HEAD", key, headers=signed).headers


def test_a_url_of_version_2_explains_itself(server, http, key):
    bucket = key.split("/")[1]
    client = server.client(signature_version="s3")
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "new"})
    parts = urlsplit(url)
    text = explanation(http.send("GET", parts.path, parts.query, headers=DEBUG))
    assert text.startswith("The signature is right for the method 'PUT'")
    typed = {**DEBUG, "content-type": "text/html"}
    text = explanation(http.send("PUT", parts.path, parts.query, headers=typed, body=b"x"))
    assert text.startswith("The signature is right for the header content-type: ''")
    assert explanation(http.send("GET", parts.path, parts.query)) == ""


@pytest.mark.parametrize(("version", "field"), [(4, "x-amz-signature"), (2, "signature")])
def test_a_form_explains_itself(http, bucket, version, field):
    fields = Poster(http, bucket).signed({"key": "k"}, [{"key": "k"}], version=version)
    fields["policy"] += "\r\n"
    reply = Poster(http, bucket).send(fields)
    assert explanation(reply) == ""
    text = explanation(Poster(http, bucket).send({"x-s3gw-debug": "explain", **fields}))
    assert text == "The signature is right, but the policy has white space that was not signed."
    assert fields[field] in reply.body.decode()  # it was sent
