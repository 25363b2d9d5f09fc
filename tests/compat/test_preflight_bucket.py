"""OPTIONS of a bucket, in its path and in its host name."""

import pytest

ORIGIN = "https://a.test"
HEADERS = {"origin": ORIGIN, "access-control-request-method": "POST"}


@pytest.fixture
def shared(s3, bucket):
    rule = {"AllowedMethods": ["POST"], "AllowedOrigins": ["*"], "AllowedHeaders": ["*"]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    return bucket


def test_a_rule_for_every_origin_allows_no_credentials(http, shared):
    reply = http.send("OPTIONS", f"/{shared}", headers=HEADERS)
    assert (reply.status, reply["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in reply.headers


def test_the_bucket_may_be_in_the_host_name(http, server, shared):
    headers = {**HEADERS, "host": f"{shared}.{server.domain}"}
    assert http.send("OPTIONS", "/", headers=headers).status == 200


def test_what_no_rule_allows_is_refused(http, shared):
    headers = {**HEADERS, "access-control-request-method": "GET"}
    reply = http.send("OPTIONS", f"/{shared}", headers=headers)
    assert (reply.status, reply.code) == (403, "AccessForbidden")
    assert b"<Method>GET</Method>" in reply.body
    assert b"<ResourceType>BUCKET</ResourceType>" in reply.body


def test_a_bucket_without_rules_is_refused(http, bucket):
    reply = http.send("OPTIONS", f"/{bucket}", headers=HEADERS)
    assert (reply.status, reply.code) == (403, "AccessForbidden")
