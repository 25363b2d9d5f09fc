"""URLs as SDKs make them unless told otherwise: boto3 with Signature Version 2, the JavaScript SDK
with headers moved into the query. And the browser's preflight, which carries no credentials."""

from urllib.parse import urlsplit

import pytest

from compose.s3_http import quote_query


def open_url(http, method, url, **more):
    parts = urlsplit(url)
    return http.send(method, parts.path, parts.query, **more)


def url_of(s3, operation, bucket, **parameters):
    made = s3.generate_presigned_url(operation, Params={"Bucket": bucket, **parameters})
    assert "AWSAccessKeyId=" in made
    return made


def test_boto3s_default_urls_put_get_head_list_and_delete(s3, http, bucket):
    key = {"Key": "a b/ü+~.txt"}
    assert open_url(http, "PUT", url_of(s3, "put_object", bucket, **key), body=b"x").status == 200
    assert open_url(http, "GET", url_of(s3, "get_object", bucket, **key)).body == b"x"
    assert open_url(http, "HEAD", url_of(s3, "head_object", bucket, **key)).status == 200
    listed = open_url(http, "GET", url_of(s3, "list_objects_v2", bucket))
    assert b"<KeyCount>1</KeyCount>" in listed.body
    assert open_url(http, "DELETE", url_of(s3, "delete_object", bucket, **key)).status == 204


def test_boto3s_default_url_carries_type_and_metadata(s3, http, bucket):
    settings = {"Key": "k", "ContentType": "text/x-test", "Metadata": {"color": "green"}}
    url = url_of(s3, "put_object", bucket, **settings)
    sent = {"content-type": "text/x-test", "x-amz-meta-color": "green"}
    for headers in ({}, sent):
        assert open_url(http, "PUT", url, headers=headers, body=b"x").status == 200
        head = s3.head_object(Bucket=bucket, Key="k")
        assert (head["ContentType"], head["Metadata"]) == ("text/x-test", {"color": "green"})


def test_boto3s_default_url_is_bound_to_what_it_names(s3, http, bucket):
    url = url_of(s3, "put_object", bucket, Key="k")
    refused = [
        open_url(http, "PUT", url.replace("/k?", "/other?"), body=b"x"),
        open_url(http, "DELETE", url),
        open_url(http, "PUT", url + "&tagging", body=b"x"),
        open_url(http, "PUT", url + "&x-amz-copy-source=%2Fb%2Fk"),
        open_url(http, "PUT", url, headers={"x-amz-acl": "public-read"}, body=b"x"),
        open_url(http, "PUT", url.replace("Expires=", "Expires=1"), body=b"x"),
    ]
    assert [reply.status for reply in refused] == [403] * len(refused)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("spelling", ["x-amz-meta-color", "X-Amz-Meta-Color"])
def test_signed_amz_parameters_act_as_headers(s3, http, bucket, spelling):
    path, query = f"/{bucket}/k", quote_query({spelling: "dark green"})
    signed = http.signer.presigned("PUT", path, query, {"host": http.netloc}, expires_seconds=60)
    assert http.send("PUT", path, signed, body=b"x").status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"color": "dark green"}


def test_a_signed_copy_source_in_the_query_copies(s3, http, bucket):
    s3.put_object(Bucket=bucket, Key="from", Body=b"original")
    path, query = f"/{bucket}/to", quote_query({"x-amz-copy-source": f"/{bucket}/from"})
    signed = http.signer.presigned("PUT", path, query, {"host": http.netloc}, expires_seconds=60)
    assert b"<CopyObjectResult" in http.send("PUT", path, signed).body
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"original"


@pytest.mark.parametrize("path", ["", "/missing"])
def test_a_preflight_needs_no_credentials(http, bucket, path):
    headers = {"origin": "https://a.example", "access-control-request-method": "PUT"}
    reply = http.send("OPTIONS", f"/{bucket}{path}", headers=headers)
    assert (reply.status, reply.code) == (403, "AccessForbidden")
    assert b"CORSResponse: CORS is not enabled for this bucket." in reply.body


def test_a_preflight_at_a_missing_bucket(http, missing_bucket):
    reply = http.send("OPTIONS", f"/{missing_bucket}/k", headers={"origin": "https://a.example"})
    assert (reply.status, reply.code) == (404, "NoSuchBucket")


def test_access_control_lists_name_the_owner_of_the_bucket(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    owner = s3.list_buckets()["Owner"]["ID"]
    assert s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"] == owner
    assert s3.get_object_acl(Bucket=bucket, Key="k")["Owner"]["ID"] == owner
