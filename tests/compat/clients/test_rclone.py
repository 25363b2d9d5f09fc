"""rclone as provider Minio and AWS, without quirks: copy, check, sync, cat with ranges, move, old
versions, encryption, mount."""

import http.client
import os
import shutil
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from compose.local import Process, wait_until
from tests.compat.conftest import BACKENDS

MIB = 1024 * 1024
ONE_STORE = pytest.mark.parametrize("server", BACKENDS[:1], indirect=True, scope="session")


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


@ONE_STORE
def test_old_versions_are_listed_read_and_cleaned_up(rclone, versioned, tmp_path):
    at = f"store:{versioned}"
    for text in ("one", "second"):
        (tmp_path / "file").write_text(text)
        rclone("copyto", tmp_path / "file", f"{at}/file")
    rclone("deletefile", f"{at}/file")
    assert rclone("lsf", at) == ""
    names = rclone("lsf", "--s3-versions", at).splitlines()  # each with its time, so in order
    found = [rclone("cat", "--s3-versions", f"{at}/{name}") for name in names]
    assert found == ["one", "second"]
    rclone("backend", "cleanup-hidden", at)
    assert rclone("lsf", "--s3-versions", at) == ""


@ONE_STORE
def test_objects_are_encrypted_with_keys_of_the_store(rclone, s3, bucket, tree, stored, digests):
    flags = ("--s3-server-side-encryption=AES256", "--s3-upload-cutoff=5M", "--s3-chunk-size=5M")
    rclone("copy", *flags, tree, f"store:{bucket}/t")
    rclone("check", "--download", tree, f"store:{bucket}/t")
    assert stored("t/") == digests(tree)
    for name in ("multipart.bin", "one byte"):
        assert s3.head_object(Bucket=bucket, Key=f"t/{name}")["ServerSideEncryption"] == "AES256"


class Proxy(BaseHTTPRequestHandler):
    """Sends what arrives for any host to the store, so that names of buckets lead there."""

    protocol_version = "HTTP/1.1"
    store: str

    def forward(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        target = urllib.parse.urlunsplit(("", "", url.path, url.query, ""))
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        connection = http.client.HTTPConnection(self.store)
        connection.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        content = reply.read()
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(server):
    """The address of a proxy that leads to the store."""
    handler = type("ToStore", (Proxy,), {"store": server.endpoint.removeprefix("http://")})
    serving = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()
    thread.join()


@ONE_STORE
def test_as_for_amazon_buckets_are_names_of_hosts(
    server, proxy, run, bucket, tree, tmp_path, digests, stored
):
    environment = environment_of(server) | {
        "RCLONE_CONFIG_STORE_PROVIDER": "AWS",
        "RCLONE_CONFIG_STORE_REGION": "us-east-1",
        "RCLONE_CONFIG_STORE_ENDPOINT": f"http://{server.domain}",
        "HTTP_PROXY": proxy,
    }

    def rclone(*words):
        return run(["rclone", "--retries=1", *words], environment)

    flags = ("--s3-upload-cutoff=5M", "--s3-chunk-size=5M")
    rclone("copy", *flags, tree, f"store:{bucket}/t")
    assert stored("t/") == digests(tree)
    rclone("check", tree, f"store:{bucket}/t")
    rclone("move", f"store:{bucket}/t", f"store:{bucket}/u")
    rclone("copy", f"store:{bucket}/u", tmp_path / "back")
    assert (stored("t/"), digests(tmp_path / "back")) == ({}, digests(tree))


# Containers without /dev/fuse can mount nothing.
if Path("/dev/fuse").exists():

    def test_a_mount_is_a_file_system(server, bucket, tree, tmp_path, digests, stored, mounted):
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
        with mounted(process, place):
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
