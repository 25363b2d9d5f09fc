"""rclone as provider Minio, without quirks: copy, check, sync, cat with ranges, move, mount."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from compose.local import Process, wait_until

MIB = 1024 * 1024


def environment_of(server):
    return {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Minio",
        "RCLONE_CONFIG_STORE_ENDPOINT": server.endpoint,
        "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": server.access_key,
        "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": server.secret_key,
    }


@pytest.fixture
def rclone(server, run):
    return lambda *words: run(["rclone", "--retries=1", *words], environment_of(server))


def test_copy_brings_a_tree_there_and_back(rclone, bucket, tree, tmp_path, digests, stored):
    rclone("copy", tree, f"store:{bucket}/t")
    assert stored("t/") == digests(tree)
    rclone("copy", f"store:{bucket}/t", tmp_path / "back")
    assert digests(tmp_path / "back") == digests(tree)


def test_check_compares_hashes_and_contents(rclone, bucket, tree, s3):
    rclone("copy", tree, f"store:{bucket}/t")
    rclone("check", tree, f"store:{bucket}/t")
    rclone("check", "--download", tree, f"store:{bucket}/t")
    s3.put_object(Bucket=bucket, Key="t/one byte", Body=b"?")
    with pytest.raises(AssertionError, match="differences found"):
        rclone("check", tree, f"store:{bucket}/t")


def test_sync_deletes_what_is_gone_and_keeps_times(rclone, bucket, tree, digests, stored):
    rclone("sync", tree, f"store:{bucket}/t")
    (tree / "empty").unlink()
    (tree / "one byte").write_bytes(b"two")
    rclone("sync", tree, f"store:{bucket}/t")
    assert stored("t/") == digests(tree)
    os.utime(tree / "one byte", (1_000_000_000, 1_000_000_000))
    rclone("sync", tree, f"store:{bucket}/t")
    listed = rclone("lsf", "--format", "tp", f"store:{bucket}/t/one byte")
    assert listed.startswith("2001-09-09")


def test_cat_reads_ranges(rclone, bucket, tree, run, server):
    (tree / "text").write_text("".join(f"line {number:06}\n" for number in range(300_000)))
    text = (tree / "text").read_text()
    rclone("copyto", tree / "text", f"store:{bucket}/text")
    for offset, count in ((0, 10), (MIB - 3, 7), (len(text) - 5, 5), (2 * MIB, 100_000)):
        found = rclone("cat", "--offset", offset, "--count", count, f"store:{bucket}/text")
        assert found == text[offset : offset + count]


def test_a_big_file_goes_in_parts_with_its_hash(rclone, s3, bucket, big, tmp_path, digests):
    rclone("copyto", "--s3-upload-cutoff=5M", "--s3-chunk-size=5M", big, f"store:{bucket}/big")
    assert "-" in s3.head_object(Bucket=bucket, Key="big")["ETag"]
    rclone("copy", f"store:{bucket}/big", tmp_path / "back")
    assert digests(tmp_path / "back")["big"] == digests(tmp_path)["big.bin"]


def test_move_and_server_side_copy(rclone, bucket, tree, digests, stored):
    rclone("copy", tree, f"store:{bucket}/a")
    rclone("copy", f"store:{bucket}/a", f"store:{bucket}/b")
    rclone("move", f"store:{bucket}/a", f"store:{bucket}/c")
    assert (stored("a/"), stored("b/"), stored("c/")) == ({}, digests(tree), digests(tree))


def test_buckets_are_made_and_purged(rclone, bucket, tree):
    name = f"{bucket}-rclone"
    rclone("mkdir", f"store:{name}")
    rclone("copy", tree / "docs", f"store:{name}")
    assert f"{name}/" in rclone("lsf", "store:").splitlines()
    rclone("purge", f"store:{name}")
    assert f"{name}/" not in rclone("lsf", "store:").splitlines()


def unmount(place: Path) -> None:
    binary = shutil.which("fusermount3") or shutil.which("fusermount")
    assert binary is not None
    if os.path.ismount(place):
        subprocess.run([binary, "-u", str(place)], check=True)


# Containers without /dev/fuse can mount nothing.
if Path("/dev/fuse").exists():

    def test_a_mount_is_a_file_system(server, bucket, tree, tmp_path, digests, stored):
        place = tmp_path / "mount"
        place.mkdir()
        # rclone 1.60 cannot use the bundle of certificates that a machine may name.
        words = [
            "env",
            "--unset=AWS_CA_BUNDLE",
            "rclone",
            "mount",
            "--vfs-cache-mode=writes",
            "--vfs-write-back=0",
        ]
        flags = ["--vfs-cache-mode=writes", "--vfs-write-back=0"]
        process = Process(
            "mount",
            [*words, *flags, f"--cache-dir={tmp_path}/cache", f"store:{bucket}", str(place)],
            tmp_path / "mount.log",
            environment_of(server),
        )
        process.start()
        try:
            process.wait_ready(lambda: os.path.ismount(place))
            shutil.copytree(tree, place / "t")
            assert digests(place / "t") == digests(tree)
            wait_until(lambda: stored("t/") == digests(tree), what="the mount's uploads")
            (place / "t/one byte").rename(place / "t/renamed")
            shutil.rmtree(place / "t/docs")
            with (place / "t/multipart.bin").open("rb") as file:
                file.seek(9 * MIB)
                assert file.read(100) == (tree / "multipart.bin").read_bytes()[9 * MIB :][:100]
            wait_until(
                lambda: sorted(stored("t/")) == ["empty", "multipart.bin", "renamed"],
                what="the mount's changes",
            )
        finally:
            unmount(place)
            process.stop()
