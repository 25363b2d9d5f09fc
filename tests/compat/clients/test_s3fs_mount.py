"""s3fs, the FUSE file system: a bucket as a directory, with owners, modes and links."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from compose.local import Process
from tests.compat.conftest import BACKENDS

MIB = 1024 * 1024


# Containers without /dev/fuse can mount nothing.
if Path("/dev/fuse").exists():

    @pytest.fixture
    def place(server, bucket, tmp_path, mounted):
        place = tmp_path / "mount"
        place.mkdir()
        options = [f"url={server.endpoint}", "use_path_request_style", "endpoint=us-east-1"]
        flags = [word for option in options for word in ("-o", option)]
        process = Process(
            "s3fs",
            ["s3fs", bucket, str(place), "-f", *flags],
            tmp_path / "s3fs.log",
            {"AWSACCESSKEYID": server.access_key, "AWSSECRETACCESSKEY": server.secret_key},
        )
        with mounted(process, place):
            yield place

    @pytest.mark.parametrize("server", BACKENDS[:1], indirect=True, scope="session")
    def test_a_mounted_bucket_is_a_file_system(place, tree, digests, stored):
        shutil.copytree(tree, place / "t")
        assert digests(place / "t") == digests(tree)
        sent = {key: sha for key, sha in stored("t/").items() if key and not key.endswith("/")}
        assert sent == digests(tree)

        (place / "t/multipart.bin").rename(place / "t/moved ü")
        (place / "t/docs").rename(place / "t/texts")
        with (place / "t/moved ü").open("r+b") as file:
            file.seek(9 * MIB)
            file.write(b"written in the middle")
        (place / "t/one byte").chmod(0o640)
        (place / "link").symlink_to("t/one byte")
        expected = bytearray((tree / "multipart.bin").read_bytes())
        expected[9 * MIB : 9 * MIB + 21] = b"written in the middle"
        assert (place / "t/moved ü").read_bytes() == expected
        assert stored("t/")["moved ü"] == hashlib.sha256(expected).hexdigest()
        assert (place / "t/one byte").stat().st_mode & 0o777 == 0o640
        assert (place / "link").read_bytes() == (tree / "one byte").read_bytes()
        assert sorted(os.listdir(place / "t")) == ["empty", "moved ü", "one byte", "texts"]

        shutil.rmtree(place / "t")
        assert sorted(stored()) == ["link"]
