"""aws cli: cp, sync, mv, rm, presign, multipart."""

import hashlib
import sys
import urllib.request
from pathlib import Path

import pytest


@pytest.fixture
def aws(server, run):
    # The one that is locked with this project, not whatever the machine has.
    binary = Path(sys.executable).with_name("aws")
    environment = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return lambda *words: run([binary, *words], environment)


def test_buckets_are_made_listed_and_removed(aws, bucket):
    name = f"{bucket}-cli"
    aws("s3", "mb", f"s3://{name}")
    assert name in aws("s3", "ls")
    aws("s3", "rb", f"s3://{name}")
    assert name not in aws("s3", "ls")


def test_cp_brings_a_tree_there_and_back(aws, bucket, tree, tmp_path, digests, stored):
    aws("s3", "cp", "--recursive", tree, f"s3://{bucket}/t/")
    assert stored("t/") == digests(tree)
    aws("s3", "cp", "--recursive", f"s3://{bucket}/t/", tmp_path / "back")
    assert digests(tmp_path / "back") == digests(tree)


def test_cp_between_keys_copies_on_the_server(aws, bucket, tree, digests, stored):
    aws("s3", "cp", "--recursive", tree, f"s3://{bucket}/t/")
    aws("s3", "cp", "--recursive", f"s3://{bucket}/t/", f"s3://{bucket}/u/")
    assert stored("u/") == digests(tree)


def test_cp_streams_from_standard_output(aws, bucket, tree):
    aws("s3", "cp", tree / "one byte", f"s3://{bucket}/k")
    assert aws("s3", "ls", f"s3://{bucket}/").split()[-2:] == ["1", "k"]


def test_sync_sends_only_what_changed_and_deletes_what_is_gone(aws, bucket, tree, digests, stored):
    aws("s3", "sync", tree, f"s3://{bucket}/t/")
    assert aws("s3", "sync", tree, f"s3://{bucket}/t/") == ""
    (tree / "empty").unlink()
    (tree / "one byte").write_bytes(b"two")
    said = aws("s3", "sync", "--delete", tree, f"s3://{bucket}/t/")
    assert ("delete:" in said, "multipart.bin" in said) == (True, False)
    assert stored("t/") == digests(tree)


def test_mv_moves(aws, bucket, tree, digests, stored):
    expected = digests(tree)
    aws("s3", "mv", "--recursive", tree, f"s3://{bucket}/t/")
    assert digests(tree) == {}
    aws("s3", "mv", "--recursive", f"s3://{bucket}/t/", f"s3://{bucket}/u/")
    assert (stored("t/"), stored("u/")) == ({}, expected)


def test_rm_removes_what_was_named_only(aws, bucket, tree, stored):
    aws("s3", "cp", "--recursive", tree, f"s3://{bucket}/")
    aws("s3", "rm", "--recursive", f"s3://{bucket}/docs/")
    assert sorted(stored()) == ["empty", "multipart.bin", "one byte"]


def test_presign_makes_a_url_that_anyone_can_read(aws, bucket, tree):
    aws("s3", "cp", tree / "docs/ünïcode & more.txt", f"s3://{bucket}/ü &.txt")
    url = aws("s3", "presign", f"s3://{bucket}/ü &.txt").strip()
    with urllib.request.urlopen(url, timeout=30) as reply:
        assert reply.read() == (tree / "docs/ünïcode & more.txt").read_bytes()


def test_a_big_file_goes_in_parts_and_comes_back(aws, s3, bucket, big, tmp_path):
    aws("s3", "cp", "--no-progress", big, f"s3://{bucket}/big")
    assert "-" in s3.head_object(Bucket=bucket, Key="big")["ETag"]
    aws("s3", "cp", "--no-progress", f"s3://{bucket}/big", tmp_path / "back")
    with big.open("rb") as sent, (tmp_path / "back").open("rb") as received:
        assert (
            hashlib.file_digest(sent, "sha256").digest()
            == hashlib.file_digest(received, "sha256").digest()
        )


def test_s3api_reads_what_s3_wrote(aws, bucket, tree, tmp_path):
    aws("s3", "cp", tree / "docs/4k.bin", f"s3://{bucket}/k")
    out = tmp_path / "range"
    aws("s3api", "get-object", "--bucket", bucket, "--key", "k", "--range", "bytes=100-199", out)
    assert out.read_bytes() == (tree / "docs/4k.bin").read_bytes()[100:200]
