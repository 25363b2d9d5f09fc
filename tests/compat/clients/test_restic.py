"""restic: back up, check every byte, restore, forget."""

import json

import pytest


@pytest.fixture
def restic(server, bucket, run, tmp_path):
    environment = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "RESTIC_REPOSITORY": f"s3:{server.endpoint}/{bucket}/backups",
        "RESTIC_PASSWORD": "correct horse",
        "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
    }
    return lambda *words: run(["restic", *words], environment)


def test_a_backup_is_restored_byte_for_byte(restic, tree, big, tmp_path, digests):
    big.rename(tree / "big.bin")
    restic("init")
    restic("backup", tree)
    restic("check", "--read-data")
    restic("restore", "latest", "--target", tmp_path / "restored")
    assert digests(tmp_path / "restored" / tree.relative_to("/")) == digests(tree)


def test_older_snapshots_are_kept_until_they_are_forgotten(restic, tree, tmp_path, digests):
    restic("init")
    restic("backup", tree)
    first = digests(tree)
    (tree / "one byte").write_bytes(b"changed")
    (tree / "multipart.bin").unlink()
    restic("backup", tree)
    snapshots = json.loads(restic("snapshots", "--json"))
    assert len(snapshots) == 2
    oldest = min(snapshots, key=lambda snapshot: snapshot["time"])
    restic("restore", oldest["short_id"], "--target", tmp_path / "first")
    assert digests(tmp_path / "first" / tree.relative_to("/")) == first
    restic("forget", "--keep-last=1", "--prune")
    restic("check", "--read-data")
    restic("restore", "latest", "--target", tmp_path / "last")
    assert digests(tmp_path / "last" / tree.relative_to("/")) == digests(tree)
