"""minio-py: its own signer, its own XML, its own multipart."""

import io
import os
import urllib.request

import pytest
from minio import Minio
from minio.commonconfig import REPLACE, ComposeSource, CopySource
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

MIB = 1024 * 1024


@pytest.fixture
def client(server):
    return Minio(
        server.endpoint.removeprefix("http://"),
        access_key=server.access_key,
        secret_key=server.secret_key,
        secure=False,
    )


def content(client, bucket, key, **more):
    reply = client.get_object(bucket, key, **more)
    try:
        return reply.read()
    finally:
        reply.close()
        reply.release_conn()


@pytest.mark.parametrize("size", [0, 1, 70_000, 12 * MIB])
def test_an_object_comes_back(client, bucket, size):
    body = os.urandom(size)
    client.put_object(bucket, "a/ü b", io.BytesIO(body), size, part_size=5 * MIB)
    assert content(client, bucket, "a/ü b") == body
    assert client.stat_object(bucket, "a/ü b").size == size


def test_a_stream_of_unknown_length_goes_in_parts(client, bucket):
    body = os.urandom(11 * MIB)
    client.put_object(bucket, "k", io.BytesIO(body), -1, part_size=5 * MIB)
    assert content(client, bucket, "k") == body


def test_a_range_is_read(client, bucket):
    client.put_object(bucket, "k", io.BytesIO(b"0123456789"), 10)
    assert content(client, bucket, "k", offset=2, length=3) == b"234"


def test_a_big_file_there_and_back(client, bucket, big, tmp_path, digests):
    client.fput_object(bucket, "big", str(big), part_size=16 * MIB)
    client.fget_object(bucket, "big", str(tmp_path / "back/big"))
    assert digests(tmp_path / "back")["big"] == digests(tmp_path)["big.bin"]


def test_metadata_and_copies(client, bucket):
    client.put_object(bucket, "k", io.BytesIO(b"x"), 1, metadata={"colour": "blue"})
    client.copy_object(bucket, "same", CopySource(bucket, "k"))
    client.copy_object(
        bucket,
        "other",
        CopySource(bucket, "k"),
        metadata={"colour": "red"},
        metadata_directive=REPLACE,
    )
    found = [
        client.stat_object(bucket, key).metadata["x-amz-meta-colour"] for key in ("same", "other")
    ]
    assert found == ["blue", "red"]


def test_objects_are_composed_on_the_server(client, bucket):
    first, second = os.urandom(6 * MIB), os.urandom(1000)
    client.put_object(bucket, "first", io.BytesIO(first), len(first))
    client.put_object(bucket, "second", io.BytesIO(second), len(second))
    sources = [ComposeSource(bucket, "first"), ComposeSource(bucket, "second")]
    client.compose_object(bucket, "both", sources)
    assert content(client, bucket, "both") == first + second


def test_listings_recurse_and_fold(client, bucket):
    for key in ("a/b/c", "a/d", "e"):
        client.put_object(bucket, key, io.BytesIO(b"x"), 1)
    assert {entry.object_name for entry in client.list_objects(bucket)} == {"a/", "e"}
    recursive = client.list_objects(bucket, recursive=True)
    assert [entry.object_name for entry in recursive] == ["a/b/c", "a/d", "e"]


def test_many_objects_are_removed_at_once(client, bucket):
    keys = [f"k{number} ü" for number in range(20)]
    for key in keys:
        client.put_object(bucket, key, io.BytesIO(b"x"), 1)
    assert list(client.remove_objects(bucket, [DeleteObject(key) for key in keys])) == []
    assert list(client.list_objects(bucket)) == []


def test_presigned_urls_are_read_and_written(client, bucket):
    url = client.presigned_put_object(bucket, "k")
    request = urllib.request.Request(url, data=b"hello", method="PUT")
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 200
    with urllib.request.urlopen(client.presigned_get_object(bucket, "k"), timeout=30) as reply:
        assert reply.read() == b"hello"


def test_errors_are_understood(client, bucket):
    with pytest.raises(S3Error) as caught:
        client.stat_object(bucket, "missing")
    assert caught.value.code == "NoSuchKey"
    assert client.bucket_exists(bucket)
    assert not client.bucket_exists(f"{bucket}-missing")
