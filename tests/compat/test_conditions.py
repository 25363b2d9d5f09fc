"""Conditional requests: RFC 9110 §13.2.2 on reads, If-Match and If-None-Match on writes."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Barrier

import pytest
from botocore.exceptions import ClientError

CREATORS = 100
ETAG = '"5d41402abc4b2a76b9719d911017c592"'
OTHER = '"00000000000000000000000000000000"'
PAST = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
FUTURE = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)


@pytest.fixture
def hello(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    return f"/{bucket}/k"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-match": ETAG}, 200),
        ({"if-match": ETAG.strip('"')}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": f"{OTHER}, {ETAG}"}, 200),
        ({"if-match": OTHER}, 412),
        ({"if-none-match": ETAG}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": f"{OTHER}, {ETAG}"}, 304),
        ({"if-none-match": f"W/{ETAG}"}, 304),
        ({"if-none-match": OTHER}, 200),
        ({"if-modified-since": PAST}, 200),
        ({"if-unmodified-since": PAST}, 412),
        ({"if-unmodified-since": FUTURE}, 200),
        ({"if-modified-since": "not a date"}, 200),
        ({"if-unmodified-since": "not a date"}, 200),
        # An entity tag decides over a date beside it.
        ({"if-match": ETAG, "if-unmodified-since": PAST}, 200),
        ({"if-none-match": OTHER, "if-modified-since": FUTURE}, 200),
        ({"if-none-match": ETAG, "if-modified-since": PAST}, 304),
        # If-Match and If-Unmodified-Since come before If-None-Match and If-Modified-Since.
        ({"if-match": OTHER, "if-none-match": ETAG}, 412),
        ({"if-match": ETAG, "if-none-match": ETAG}, 304),
        ({"if-unmodified-since": PAST, "if-none-match": ETAG}, 412),
    ],
)
def test_reads_keep_their_conditions(http, hello, method, headers, status):
    reply = http.request(method, hello, headers=headers)
    assert reply.status == status
    if status == 200:
        assert reply["etag"] == ETAG
    if status == 304:
        assert (reply["etag"], reply.body) == (ETAG, b"")
    if status == 412 and method == "GET":
        assert reply.code == "PreconditionFailed"
        assert b"<Condition>" in reply.body


def test_not_modified_since_its_own_date_is_304(http, hello):
    modified = http.request("HEAD", hello)["last-modified"]
    assert http.request("GET", hello, headers={"if-modified-since": modified}).status == 304
    assert http.request("GET", hello, headers={"if-unmodified-since": modified}).status == 200


def test_a_condition_on_a_missing_key_is_still_no_such_key(http, bucket):
    for headers in ({"if-match": "*"}, {"if-none-match": "*"}, {"if-match": ETAG}):
        assert http.request("GET", f"/{bucket}/missing", headers=headers).code == "NoSuchKey"


def test_a_put_if_nothing_is_there_creates_once(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"first"


def test_a_put_if_nothing_is_there_succeeds_again_after_a_delete(s3, bucket):
    for body in (b"first", b"second"):
        s3.put_object(Bucket=bucket, Key="k", Body=body, IfNoneMatch="*")
        s3.delete_object(Bucket=bucket, Key="k")


def test_a_put_if_the_etag_matches_replaces(s3, bucket, refused):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"first")["ETag"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfMatch=etag)
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"third", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second"


def test_a_put_if_the_etag_matches_needs_an_object(s3, bucket, refused):
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", IfMatch=ETAG)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_an_if_none_match_other_than_a_star_is_not_implemented_on_writes(s3, bucket, refused):
    with refused("NotImplemented", 501):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", IfNoneMatch=ETAG)


def _create(client, barrier, bucket, number):
    barrier.wait()
    try:
        client.put_object(Bucket=bucket, Key="k", Body=str(number).encode(), IfNoneMatch="*")
    except ClientError as error:
        return error.response["Error"]["Code"]
    return number


def test_of_a_hundred_racing_creators_over_all_gateways_one_wins(server, s3, bucket):
    clients = [server.client(endpoint) for endpoint in server.endpoints]
    barrier = Barrier(CREATORS)
    with ThreadPoolExecutor(CREATORS) as pool:
        outcomes = [
            future.result()
            for future in [
                pool.submit(_create, clients[number % len(clients)], barrier, bucket, number)
                for number in range(CREATORS)
            ]
        ]
    winners = [outcome for outcome in outcomes if isinstance(outcome, int)]
    losers = {outcome for outcome in outcomes if not isinstance(outcome, int)}
    assert len(winners) == 1
    assert losers <= {"PreconditionFailed", "ConditionalRequestConflict"}
    found = s3.get_object(Bucket=bucket, Key="k")["Body"].read()
    assert found == str(winners[0]).encode()


def test_racing_replacers_of_one_etag_have_one_winner(server, s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"before")["ETag"]
    clients = [server.client(endpoint) for endpoint in server.endpoints]

    def replace(number):
        try:
            clients[number % len(clients)].put_object(
                Bucket=bucket, Key="k", Body=str(number).encode(), IfMatch=etag
            )
        except ClientError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number in pool.map(replace, range(32)) if number is not None]
    assert len(winners) == 1
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == str(winners[0]).encode()
