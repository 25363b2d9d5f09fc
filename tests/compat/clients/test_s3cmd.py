"""s3cmd: put, get, sync, ls, cp, mv, del, info, setacl."""

import pytest


@pytest.fixture
def s3cmd(server, run):
    host = server.endpoint.removeprefix("http://")
    flags = [
        *("--config=/dev/null", "--no-ssl", "--no-progress", f"--host={host}"),
        *(f"--host-bucket={host}", "--region=us-east-1"),
        *(f"--access_key={server.access_key}", f"--secret_key={server.secret_key}"),
    ]
    return lambda *words: run(["s3cmd", *flags, *words], {})


def test_put_and_get_bring_a_tree_there_and_back(s3cmd, bucket, tree, tmp_path, digests, stored):
    s3cmd("put", "--recursive", f"{tree}/", f"s3://{bucket}/t/")
    assert stored("t/") == digests(tree)
    (tmp_path / "back").mkdir()
    s3cmd("get", "--recursive", f"s3://{bucket}/t/", f"{tmp_path}/back/")
    assert digests(tmp_path / "back") == digests(tree)


def test_sync_deletes_what_is_gone(s3cmd, bucket, tree, digests, stored):
    s3cmd("sync", f"{tree}/", f"s3://{bucket}/t/")
    (tree / "empty").unlink()
    (tree / "one byte").write_bytes(b"two")
    s3cmd("sync", "--delete-removed", f"{tree}/", f"s3://{bucket}/t/")
    assert stored("t/") == digests(tree)


def test_ls_shows_sizes_and_folders(s3cmd, bucket, tree):
    s3cmd("put", "--recursive", f"{tree}/", f"s3://{bucket}/")
    top = s3cmd("ls", f"s3://{bucket}/")
    assert "DIR" in top
    assert f"s3://{bucket}/docs/" in top
    everything = s3cmd("ls", "--recursive", f"s3://{bucket}/").splitlines()
    assert {line.split("s3://")[1].partition("/")[2] for line in everything} == {
        str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()
    }


def test_cp_and_mv_work_on_the_server(s3cmd, bucket, tree, stored, digests):
    s3cmd("put", tree / "docs/4k.bin", f"s3://{bucket}/a")
    s3cmd("cp", f"s3://{bucket}/a", f"s3://{bucket}/b")
    s3cmd("mv", f"s3://{bucket}/a", f"s3://{bucket}/c d")
    expected = digests(tree)["docs/4k.bin"]
    assert stored() == {"b": expected, "c d": expected}


def test_del_removes(s3cmd, bucket, tree, stored):
    s3cmd("put", "--recursive", f"{tree}/", f"s3://{bucket}/t/")
    s3cmd("del", f"s3://{bucket}/t/empty")
    assert "empty" not in stored("t/")
    s3cmd("del", "--recursive", "--force", f"s3://{bucket}/t/docs/")
    assert sorted(stored("t/")) == ["multipart.bin", "one byte"]


def test_a_big_file_goes_in_parts(s3cmd, s3, bucket, big, tmp_path, digests):
    s3cmd("put", "--multipart-chunk-size-mb=15", big, f"s3://{bucket}/big")
    assert "-" in s3.head_object(Bucket=bucket, Key="big")["ETag"]
    (tmp_path / "back").mkdir()
    s3cmd("get", f"s3://{bucket}/big", tmp_path / "back/big")
    assert digests(tmp_path / "back")["big"] == digests(tmp_path)["big.bin"]


def test_info_describes_bucket_and_object(s3cmd, bucket, tree):
    s3cmd("put", "--mime-type=text/plain", tree / "one byte", f"s3://{bucket}/k")
    assert "FULL_CONTROL" in s3cmd("info", f"s3://{bucket}")
    said = s3cmd("info", f"s3://{bucket}/k")
    assert "text/plain" in said
    assert "File size: 1" in said


def test_buckets_are_made_and_removed(s3cmd, bucket):
    name = f"{bucket}-s3cmd"
    s3cmd("mb", f"s3://{name}")
    assert f"s3://{name}" in s3cmd("ls")
    s3cmd("rb", f"s3://{name}")
    assert f"s3://{name}" not in s3cmd("ls")


def test_setacl_opens_and_closes(s3cmd, http, listed, tree):
    s3cmd("put", "--acl-public", tree / "one byte", f"s3://{listed}/k")
    assert http.send("GET", f"/{listed}/k").status == 200
    s3cmd("cp", f"s3://{listed}/k", f"s3://{listed}/copy")
    s3cmd("setacl", "--acl-private", f"s3://{listed}/k")
    assert http.send("GET", f"/{listed}/k").code == "AccessDenied"
    s3cmd("setacl", "--acl-public", f"s3://{listed}/k")
    assert http.send("GET", f"/{listed}/k").status == 200
    assert "anon" in s3cmd("info", f"s3://{listed}/k")
    s3cmd("setacl", "--acl-public", f"s3://{listed}")
    assert http.send("GET", f"/{listed}").status == 200
