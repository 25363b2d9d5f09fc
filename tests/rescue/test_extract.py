"""Objects read from shard files alone: damage of every kind, and keys that mean harm."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

import s3gw.cluster.writer
from s3gw.metadata.records import Checksums, Description
from s3gw.objects import footer
from s3gw.rescue import commands
from s3gw.rescue.decode import NotReadable
from s3gw.rescue.drives import RescueError, open_drives
from s3gw.rescue.extract import Folder, body, hashed_path, safe_name, safe_path
from tests.rescue.disks import catalog_of, put_on_disks, recovered
from tests.rescue.test_rebuild import PART, check_content, data_of, filled, multipart
from tests.stores import operations
from tests.stores.memory_store import BUCKET, MemoryCluster, Process


def rescue(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run a command that needs no engine, with `--json`; its exit code and lines."""
    parser = commands.argparse.ArgumentParser()
    commands.add_arguments(parser)
    code = commands.run(parser.parse_args([*arguments, "--json"]), None)  # type: ignore[arg-type]
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def shard_files(paths: list[str]) -> dict[str, list[Path]]:
    """All shard files by blob."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        for file in (Path(path) / "data").rglob("*.*"):
            if file.is_file():
                found.setdefault(file.name.split(".")[0], []).append(file)
    return found


async def test_list_and_extract_everything(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = await filled(memory_store)
    paths = put_on_disks(memory_cluster, tmp_path / "drives")
    code, lines = rescue(capsys, "list", *paths)
    assert code == 0
    objects = {line["key"]: line for line in lines if line["kind"] == "object" and line["current"]}
    assert set(objects) == set(expected)
    assert {line["state"] for line in objects.values()} == {"readable"}
    assert objects["parts"]["multipart"]
    assert {k: line["size"] for k, line in objects.items()} == {
        k: len(data) for k, data in expected.items()
    }
    assert [line["size"] for line in lines if line.get("key") == "twice"] == [6, 5]

    out = tmp_path / "out"
    code, lines = rescue(capsys, "extract", "--all", "--out", str(out), *paths)
    assert code == 0
    assert {line["key"]: Path(line["path"]).read_bytes() for line in lines} == expected
    inside = {path.resolve() for path in out.rglob("*")}
    assert all(out.resolve() in path.parents for path in inside)
    assert not list(out.rglob(".*"))


@pytest.mark.parametrize("seed", range(4))
async def test_any_two_shards_of_every_blob_may_be_damaged(
    seed: int, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    expected = await filled(memory_store)
    paths = put_on_disks(memory_cluster, tmp_path)
    for files in shard_files(paths).values():
        for file in chance.sample(sorted(files), 2):
            data = bytearray(file.read_bytes())
            how = chance.randrange(4)
            if how == 0:
                file.unlink()
            elif how == 1:
                file.write_bytes(data[: chance.randrange(len(data))])
            else:
                for _ in range(chance.choice((1, 50))):
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
                file.write_bytes(data)
    catalog = catalog_of(paths)
    for _, key, versions in catalog.versions(BUCKET):
        if key in expected:
            assert b"".join(body(versions[0])) == expected[key]


async def test_damage_in_different_stripes_of_many_shards(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """Four of six shards are damaged, but no stripe has lost more than two."""
    data = data_of("striped", 4 * 128 * 1024)
    await operations.put(memory_store, "striped", data)
    paths = put_on_disks(memory_cluster, tmp_path)
    ((_, files),) = shard_files(paths).items()
    block = 64 + 32 * 1024 + 8
    for file, stripe in zip(sorted(files, key=lambda f: f.suffix), (0, 0, 1, 1), strict=False):
        broken = bytearray(file.read_bytes())
        broken[64 + stripe * (32 * 1024 + 8) + 5] ^= 1
        file.write_bytes(broken)
    assert block < len(data)
    ((_, _, (version,)),) = catalog_of(paths).versions(BUCKET)
    assert b"".join(body(version)) == data


async def test_what_does_not_decode_is_said_and_leaves_no_file(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await operations.put(memory_store, "k", data_of("k", 200_000))
    paths = put_on_disks(memory_cluster, tmp_path / "drives")
    ((_, files),) = shard_files(paths).items()
    for file in files[:3]:
        broken = bytearray(file.read_bytes())
        broken[100] ^= 1
        file.write_bytes(broken)
    out = tmp_path / "out"
    one = ["extract", "--bucket", BUCKET, "--key", "k", "--out", str(out), *paths]
    assert rescue(capsys, *one) == (1, [])
    assert not out.exists()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "drives"]
    files[0].unlink()
    files[1].unlink()
    files[2].unlink()
    code, lines = rescue(capsys, "list", *paths)
    assert (code, lines[0]["state"], lines[0]["shards"]) == (1, "lost", 3)


async def test_a_file_that_is_there_is_not_overwritten(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await operations.put(memory_store, "k", b"from the store")
    paths = put_on_disks(memory_cluster, tmp_path / "drives")
    out = tmp_path / "out"
    out.write_text("mine")
    one = ["extract", "--bucket", BUCKET, "--key", "k", "--out", str(out), *paths]
    assert rescue(capsys, *one)[0] == 2
    assert out.read_text() == "mine"
    victim = tmp_path / "victim"
    link = tmp_path / "link"
    link.symlink_to(victim)
    one[one.index(str(out))] = str(link)
    assert rescue(capsys, *one)[0] == 2
    assert not victim.exists()
    with pytest.raises(RescueError, match="not empty"):
        Folder(tmp_path)


HOSTILE = [
    "../escape",
    "/etc/passwd",
    "a/../../b",
    "nul\x00byte",
    "a",
    "a/b",
    "a//b",
    "a/",
    ".",
    "..",
    "con\r\ntrol\x1b[2J",
    "x" * 1000,
    "y/" * 500,
    "%2E%2E",
    "\u202egnp.exe",
    "\x7f\x80\x9f",
    "%extracted.jsonl",
    "%keys/1",
]


async def test_hostile_keys_stay_below_the_target_and_apart(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, key in enumerate(HOSTILE):
        await operations.put(memory_store, key, b"%d" % number)
    paths = put_on_disks(memory_cluster, tmp_path / "drives")
    out = tmp_path / "deep" / "out"
    code, lines = rescue(capsys, "extract", "--all", "--out", str(out), *paths)
    assert code == 0
    found = {line["key"]: Path(line["path"]) for line in lines}
    assert {key: path.read_bytes() for key, path in found.items()} == {
        key: b"%d" % number for number, key in enumerate(HOSTILE)
    }
    assert len(set(found.values())) == len(HOSTILE)
    for path in found.values():
        assert out in path.resolve().parents
        assert path.name.isprintable() or "\u202e" in path.name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "drives"]
    listing = (out / "%extracted.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"] for line in listing} == set(HOSTILE)


def test_names_are_one_piece_of_a_path() -> None:
    chance = random.Random(3)
    alphabet = "./%\\\x00\n ~aé\U0001f600"
    for _ in range(3000):
        text = "".join(chance.choice(alphabet) for _ in range(chance.randrange(8)))
        name = safe_name(text)
        assert "/" not in name
        assert "\x00" not in name
        assert name not in ("", ".", "..")
    assert safe_path("../b", "k").startswith("..%2Fb/")
    assert "/" not in hashed_path("b", "../x").removeprefix("b/%keys/")


async def test_shards_of_older_versions_that_do_not_say_how_they_are_coded(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        s3gw.cluster.writer, "noted", lambda footer_map, profile, scheme, size, crc64: footer_map
    )
    expected = await filled(memory_store)
    expected["more-parts"] = await multipart(memory_store, "more-parts", PART, 1)
    paths = put_on_disks(memory_cluster, tmp_path)
    catalog = catalog_of(paths)
    assert not catalog.profiles
    for _, key, versions in catalog.versions(BUCKET):
        if key in expected:
            assert b"".join(body(versions[0])) == expected[key]
    with pytest.raises(RescueError, match="--pg-count"):
        await recovered(memory_cluster, paths)
    result = await recovered(memory_cluster, paths, pg_count=8)
    result.check()
    await check_content(result.process, expected)


async def test_what_is_not_a_drive_is_refused(
    memory_cluster: MemoryCluster, tmp_path: Path
) -> None:
    paths = put_on_disks(memory_cluster, tmp_path)
    with pytest.raises(RescueError, match="not a drive"):
        open_drives([str(tmp_path)])
    with pytest.raises(RescueError, match="twice"):
        open_drives([paths[0], paths[0]])
    identity = Path(paths[1]) / "id.json"
    identity.write_text(identity.read_text().replace(memory_cluster.identity.store_id, "other"))  # type: ignore[union-attr]
    with pytest.raises(RescueError, match="different stores"):
        open_drives(paths)
    identity.write_text("{")
    with pytest.raises(RescueError, match="cannot be read"):
        open_drives(paths)


async def test_a_blob_whose_bytes_are_others_is_refused(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """Every checksum of a footer that lies about its ETag is right."""
    await operations.put(memory_store, "k", data_of("k", 100))
    ((_, _, (version,)),) = catalog_of(put_on_disks(memory_cluster, tmp_path)).versions(BUCKET)
    version.footer = type(version.footer)(v=1, kind="object", size=100, etag="0" * 32)
    with pytest.raises(NotReadable, match="ETag"):
        b"".join(body(version))


def test_footers_of_any_bytes_are_read_or_refused() -> None:
    chance = random.Random(11)
    whole = footer.describe(
        "object",
        "bucket",
        "key",
        store="store",
        size=5,
        etag="e",
        modified_ms=1,
        owner="o",
        checksums=Checksums({"SHA256": "x"}, "FULL_OBJECT"),
        description=Description({"content-type": "a"}, {"b": "c"}, {"d": "e"}, redirect="/f"),
        sequence=9,
        content_id=b"c" * 16,
    )
    found = footer.parse(whole)
    assert (found.sequence, found.description.redirect, found.kind) == (9, "/f", "object")
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 3))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            read = footer.parse(bytes(changed))
        except footer.FooterUnknown:
            continue
        assert 0 <= read.sequence < 2**63
        assert read.v == 1
    for wrong in ({"sequence": 2**63}, {"sequence": -1}, {"modified_ms": 2**60}, {"v": 2}):
        fields = {"v": 1, "kind": "object", **wrong}
        with pytest.raises(footer.FooterUnknown):
            footer.parse(msgspec.msgpack.encode(fields))


def test_a_pipe_under_a_shards_name_does_not_hold_up_a_scan(tmp_path: Path) -> None:
    folder = tmp_path / "d0" / "data" / "4+2" / "3"
    folder.mkdir(parents=True)
    os.mkfifo(folder / f"{'0' * 32}.0")
    (folder / f"{'0' * 32}.1").symlink_to("/dev/zero")
    identity = {"store_id": "s", "drive_id": "d0", "version": 1}
    (tmp_path / "d0" / "id.json").write_text(json.dumps(identity))
    catalog = catalog_of([str(tmp_path / "d0")])
    assert (catalog.blobs, catalog.scan.shards) == (0, 2)
    assert catalog.scan.unreadable + catalog.scan.damaged == 2


async def test_directories_that_cannot_be_read_are_told(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await operations.put(memory_store, "k", b"0" * 100)
    paths = put_on_disks(memory_cluster, tmp_path)
    listdir = os.listdir

    def failing(path: Path) -> list[str]:
        if str(path).startswith(paths[0]):
            raise OSError(errno.EIO, "Input/output error")
        return listdir(path)

    argv = ["list", *paths]
    monkeypatch.setattr(os, "listdir", failing)
    parser = commands.argparse.ArgumentParser()
    commands.add_arguments(parser)
    assert commands.run(parser.parse_args(argv), None) == 0  # type: ignore[arg-type]
    assert "a file or directory could not be read" in capsys.readouterr().err


async def test_a_target_that_cannot_be_written_is_one_line(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.put(memory_store, "a/b", b"0" * 100)
    catalog = catalog_of(put_on_disks(memory_cluster, tmp_path / "drives"))
    ((_, key, versions),) = catalog.versions(BUCKET)
    folder = Folder(tmp_path / "out")
    folder.path = Path("/proc/nowhere")
    with pytest.raises(RescueError, match="cannot be written"):
        folder.add(BUCKET, key, versions[0])
