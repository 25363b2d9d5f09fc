"""Access logs as a client finds and reads them."""

import re

import pytest
from botocore.exceptions import ClientError

from compose.local import wait_until

WAIT_SECONDS = 60
FIELDS = re.compile(
    r"^(?P<owner>\S+) (?P<bucket>\S+) \[(?P<time>.*?)\] (?P<ip>\S+) (?P<requester>\S+) "
    r"(?P<id>\S+) (?P<operation>\S+) (?P<key>\S+) \"(?P<uri>[^\"]*)\" (?P<status>\S+) "
    r"(?P<error>\S+) (?P<sent>\S+) (?P<size>\S+) (?P<total>\S+) (?P<turnaround>\S+) "
    r"\"(?P<referrer>[^\"]*)\" \"(?P<agent>[^\"]*)\" (?P<version>\S+) (?P<host_id>\S+) "
    r"(?P<signature>\S+) (?P<cipher>\S+) (?P<auth>\S+) (?P<host>\S+) (?P<tls>\S+) "
    r"(?P<point>\S+) (?P<acl>\S+)$"
)


@pytest.fixture
def logged(s3, bucket, make_bucket):
    """`logged(*ids)`: the lines of requests with these ids, in their order, once they are there."""
    target = make_bucket()
    status = {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": "log/"}}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=status)

    def lines(*ids):
        found = {}

        def are_there():
            for entry in s3.list_objects_v2(Bucket=target).get("Contents", []):
                assert re.fullmatch(r"log/\d{4}(-\d\d){5}-[0-9A-F]{16}", entry["Key"])
                body = s3.get_object(Bucket=target, Key=entry["Key"])["Body"].read().decode()
                for line in body.splitlines():
                    fields = FIELDS.match(line)
                    assert fields is not None, line
                    found[fields["id"]] = fields.groupdict()
            return all(id_ in found for id_ in ids)

        wait_until(are_there, what="the lines", seconds_max=WAIT_SECONDS)
        return [found[id_] for id_ in ids]

    yield lines
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})


def id_of(reply):
    return reply["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"]


def test_requests_of_a_bucket_are_logged(s3, bucket, logged):
    written = s3.put_object(Bucket=bucket, Key="a b\nc", Body=b"twelve bytes")
    read = s3.get_object(Bucket=bucket, Key="a b\nc", Range="bytes=0-4")
    read["Body"].read()
    with pytest.raises(ClientError) as missing:
        s3.get_object(Bucket=bucket, Key="nothing")
    listing = s3.list_objects_v2(Bucket=bucket)
    put, get, not_found, list_ = logged(
        id_of(written), id_of(read), id_of(missing.value.response), id_of(listing)
    )
    assert (put["operation"], put["status"], put["key"]) == ("REST.PUT.OBJECT", "200", "a%20b%0Ac")
    assert (put["size"], put["sent"]) == ("12", "-")
    assert (get["operation"], get["status"]) == ("REST.GET.OBJECT", "206")
    assert (get["size"], get["sent"]) == ("12", "5")
    assert get["turnaround"].isdigit()
    assert (not_found["status"], not_found["error"]) == ("404", "NoSuchKey")
    assert (list_["operation"], list_["key"]) == ("REST.GET.BUCKET", "-")
    for line in (put, get, not_found, list_):
        assert line["bucket"] == bucket
        assert line["requester"] == line["owner"]
        assert (line["signature"], line["auth"]) == ("SigV4", "AuthHeader")
        assert "boto" in line["agent"].lower()


def test_what_was_denied_is_logged(s3, http, bucket, logged):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    anonymous = http.send("GET", f"/{bucket}/k")
    assert anonymous.status == 403
    (line,) = logged(anonymous.headers["x-amz-request-id"])
    assert (line["status"], line["error"]) == ("403", "AccessDenied")
    assert (line["requester"], line["auth"], line["signature"]) == ("-", "-", "-")


def test_presigned_requests_are_logged_without_their_signature(s3, http, bucket, logged):
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    query = url.split("?", 1)[1]
    signature = re.search(r"Signature=([^&]+)", query)[1]
    headers = {"User-Agent": 'evil" 200 -', "Referer": url}
    reply = http.send("GET", f"/{bucket}/k", query, headers=headers)
    assert reply.status == 200
    (line,) = logged(reply.headers["x-amz-request-id"])
    assert line["auth"] == "QueryString"
    assert line["agent"] == "evil%22 200 -"
    assert all(signature not in value for value in line.values())
    assert "Signature=***" in line["uri"]
    assert "Signature=***" in line["referrer"]
