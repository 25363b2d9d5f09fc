"""Path-style and virtual-host-style addressing."""

import pytest

from compose.s3_http import S3Http


@pytest.fixture
def virtual(server):
    """Sends a request with the bucket in the Host header, as a browser behind DNS would."""
    base = server.http()

    def request(bucket, method, path, query="", **more):
        host = f"{bucket}.{server.domain}:{base.port}"
        headers = {**more.pop("headers", {}), "host": host}
        return base.request(method, path, query, headers=headers, **more)

    return request


def test_an_object_put_in_one_style_is_read_in_the_other(http: S3Http, virtual, bucket):
    assert virtual(bucket, "PUT", "/a/b%20c", body=b"hello").status == 200
    assert http.request("GET", f"/{bucket}/a/b%20c").body == b"hello"
    http.request("PUT", f"/{bucket}/path", body=b"path")
    assert virtual(bucket, "GET", "/path").body == b"path"


def test_the_root_of_a_virtual_host_is_the_bucket(virtual, bucket):
    assert virtual(bucket, "HEAD", "/").status == 200
    assert b"<KeyCount>0</KeyCount>" in virtual(bucket, "GET", "/", "list-type=2").body


def test_a_key_that_looks_like_the_bucket_is_a_key(virtual, bucket):
    assert virtual(bucket, "PUT", f"/{bucket}", body=b"x").status == 200
    assert f"<Key>{bucket}</Key>".encode() in virtual(bucket, "GET", "/", "list-type=2").body


def test_the_host_is_compared_without_case(server, http, bucket):
    host = f"{bucket}.{server.domain.upper()}:{http.port}"
    assert http.request("HEAD", "/", headers={"host": host}).status == 200


def test_a_virtual_host_of_no_bucket_is_refused(virtual, missing_bucket):
    reply = virtual(missing_bucket, "GET", "/k")
    assert (reply.status, reply.code) == (404, "NoSuchBucket")


def test_the_bare_domain_is_the_service(server, http, bucket):
    headers = {"host": f"{server.domain}:{http.port}"}
    assert f"<Name>{bucket}</Name>".encode() in http.request("GET", "/", headers=headers).body
    assert http.request("HEAD", f"/{bucket}", headers=headers).status == 200


def test_a_bucket_with_dots_is_found_in_both_styles(s3, virtual, http, bucket):
    dotted = f"{bucket}.with.dots"
    s3.create_bucket(Bucket=dotted)
    assert virtual(dotted, "HEAD", "/").status == 200
    assert http.request("HEAD", f"/{dotted}").status == 200
    s3.delete_bucket(Bucket=dotted)
