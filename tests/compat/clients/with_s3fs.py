"""s3fs, the file system of fsspec: whole files, parts, ranges, appends, copies, tags, versions.

Run by test_fsspec.py with the libraries of requirements-clients.lock: `with_s3fs.py BUCKET`.
"""

import os
import sys
import urllib.request

import s3fs

MIB = 1024 * 1024


def files(store: s3fs.S3FileSystem, bucket: str) -> None:
    store.pipe(f"{bucket}/t/ü a", b"hello")
    body = os.urandom(12 * MIB)
    with store.open(f"{bucket}/t/big", "wb", block_size=5 * MIB) as file:
        file.write(body)
    with store.open(f"{bucket}/t/big", "rb") as file:
        file.seek(7 * MIB)
        assert file.read(100) == body[7 * MIB :][:100]
    store.mv(f"{bucket}/t/big", f"{bucket}/t/deep/moved")
    store.copy(f"{bucket}/t/deep/moved", f"{bucket}/t/copy")
    assert store.cat(f"{bucket}/t/copy") == body
    with urllib.request.urlopen(store.sign(f"{bucket}/t/copy"), timeout=30) as reply:
        assert reply.read() == body
    with store.open(f"{bucket}/t/ü a", "ab") as file:
        file.write(b", you")
    assert store.cat(f"{bucket}/t/ü a") == b"hello, you"


def names(store: s3fs.S3FileSystem, bucket: str) -> None:
    top = f"{bucket}/t"
    assert store.ls(top, detail=False) == [f"{top}/copy", f"{top}/deep", f"{top}/ü a"]
    assert store.find(top) == [f"{top}/copy", f"{top}/deep/moved", f"{top}/ü a"]
    assert store.glob(f"{top}/**/m*") == [f"{top}/deep/moved"]
    store.setxattr(f"{top}/copy", colour="blue")
    store.put_tags(f"{top}/copy", {"kind": "copy"})
    assert store.getxattr(f"{top}/copy", "colour") == "blue"
    assert store.get_tags(f"{top}/copy") == {"kind": "copy"}
    try:
        store.cat(f"{top}/missing")
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("a missing key was read")


def versions(store: s3fs.S3FileSystem, bucket: str) -> None:
    store.make_bucket_versioned(bucket, True)
    for text in (b"first", b"second"):
        store.pipe(f"{bucket}/v", text)
    ids = [each["VersionId"] for each in store.object_version_info(f"{bucket}/v")]
    assert [store.cat(f"{bucket}/v", version_id=each) for each in ids] == [b"second", b"first"]


def main(bucket: str) -> None:
    store = s3fs.S3FileSystem(use_listings_cache=False)
    aware = s3fs.S3FileSystem(use_listings_cache=False, version_aware=True)
    files(store, bucket)
    names(store, bucket)
    versions(aware, bucket)
    store.rm(f"{bucket}/t", recursive=True)
    assert not store.exists(f"{bucket}/t")


main(*sys.argv[1:])
