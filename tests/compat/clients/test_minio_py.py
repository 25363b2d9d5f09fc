"""minio-py: its own signer, its own XML, its own multipart."""

import io
import os
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, GOVERNANCE, REPLACE, ComposeSource, CopySource, Tags
from minio.datatypes import PostPolicy
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.objectlockconfig import DAYS, ObjectLockConfig
from minio.sse import SseS3
from minio.sseconfig import Rule, SSEConfig
from minio.versioningconfig import VersioningConfig

from tests.compat.conftest import BACKENDS
from tests.compat.forms import Poster

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


ONE_STORE = pytest.mark.parametrize("server", BACKENDS[:1], indirect=True, scope="session")


def put(client, bucket, key, body, **more):
    return client.put_object(bucket, key, io.BytesIO(body), len(body), **more).version_id


@ONE_STORE
def test_versions_and_tags(client, bucket):
    client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    assert client.get_bucket_versioning(bucket).status == ENABLED
    ids = [put(client, bucket, "k", body) for body in (b"one", b"two")]
    client.remove_object(bucket, "k")
    assert [content(client, bucket, "k", version_id=each) for each in ids] == [b"one", b"two"]
    listed = list(client.list_objects(bucket, include_version=True))
    found = {each.version_id: each.is_delete_marker for each in listed}
    assert (len(found), [found[each] for each in ids]) == (3, [False, False])
    tags = Tags.new_object_tags()
    tags["colour"] = "blau ü"
    client.set_object_tags(bucket, "k", tags, version_id=ids[0])
    assert client.get_object_tags(bucket, "k", version_id=ids[0]) == tags
    tags = Tags.new_bucket_tags()
    tags["team"] = "storage"
    client.set_bucket_tags(bucket, tags)
    assert client.get_bucket_tags(bucket) == tags


@ONE_STORE
def test_encryption_with_keys_of_the_store(client, bucket):
    body = os.urandom(11 * MIB)
    put(client, bucket, "asked", body, sse=SseS3(), part_size=5 * MIB)
    client.set_bucket_encryption(bucket, SSEConfig(Rule.new_sse_s3_rule()))
    assert client.get_bucket_encryption(bucket).rule.sse_algorithm == "AES256"
    put(client, bucket, "default", body)
    for key in ("asked", "default"):
        said = client.stat_object(bucket, key).metadata["x-amz-server-side-encryption"]
        assert (said, content(client, bucket, key)) == ("AES256", body)


@ONE_STORE
def test_locked_versions_are_released_by_who_may(client, bucket):
    name = f"{bucket}-locked"
    client.make_bucket(name, object_lock=True)
    client.set_object_lock_config(name, ObjectLockConfig(GOVERNANCE, 1, DAYS))
    configured = client.get_object_lock_config(name)
    assert (configured.mode, configured.duration) == (GOVERNANCE, 1)
    locked = DeleteObject("k", put(client, name, "k", b"kept", legal_hold=True))
    assert client.get_object_retention(name, "k").mode == GOVERNANCE
    refused = client.remove_objects(name, [locked], bypass_governance_mode=True)
    assert [error.code for error in refused] == ["AccessDenied"]
    client.disable_object_legal_hold(name, "k")
    assert [error.code for error in client.remove_objects(name, [locked])] == ["AccessDenied"]
    assert list(client.remove_objects(name, [locked], bypass_governance_mode=True)) == []
    client.remove_bucket(name)


@ONE_STORE
def test_a_form_is_signed_and_sent(client, http, bucket):
    policy = PostPolicy(bucket, datetime.now(UTC) + timedelta(minutes=5))
    policy.add_equals_condition("key", "up ü")
    policy.add_content_length_range_condition(1, 10)
    fields = {**client.presigned_post_policy(policy), "key": "up ü"}
    poster = Poster(http, bucket)
    assert poster.send(fields, b"0123456789").status == 204
    assert poster.send(fields, b"one more than ten").code == "EntityTooLarge"
    assert content(client, bucket, "up ü") == b"0123456789"
