"""`s3gw rescue`: recovery from the drives alone.

    list DRIVE…                    what is on the drives
    extract --bucket B --key K --out FILE DRIVE…
    extract --all --out DIR DRIVE…
    rebuild --into sqlite --data DIR DRIVE…    metadata from snapshots, journals and shards
    rebuild --into etcd --etcd URL DRIVE…
    restore --snapshot FILE|newest-on-drives --into … [DRIVE…]    a snapshot, and nothing newer
    confirm --data DIR DRIVE… | --etcd URL     accept the outcome of the last two

`list` and `extract` only read. Exit codes: 0 done, 1 done but some of what was asked for is lost, 2
not possible (one line says why, nothing was changed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from s3gw.kv.interface import KV, EngineError
from s3gw.objects.keyring.master import BadMasterKeys, read_file
from s3gw.rescue import sources
from s3gw.rescue.adopt import recover
from s3gw.rescue.catalog import Catalog, Version
from s3gw.rescue.decode import NotReadable
from s3gw.rescue.drives import RescueDrive, RescueError, open_drives
from s3gw.rescue.extract import Folder, extract_to
from s3gw.rescue.one_machine import into_sqlite
from s3gw.rescue.rebuild import Finding, Plan, Rebuild, confirm
from s3gw.rescue.unsealing import RescueKeys

EXIT_DONE = 0
EXIT_LOST = 1
EXIT_REFUSED = 2
NEWEST = "newest-on-drives"
PG_COUNT_DEFAULT = 256
PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Engines:
    """How metadata engines are opened; handed in by whoever knows them. `bare` is an embedded one
    in a directory without a journal, `embedded` that of a data directory and its drives."""

    bare: Callable[[Path], Awaitable[KV]]
    embedded: Callable[[str, Sequence[Path]], Awaitable[KV]]
    etcd: Callable[[Sequence[str]], Awaitable[KV]]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    actions = command.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="what is on the drives")
    listing.add_argument("--bucket", default="")
    listing.add_argument("--prefix", default="")
    extract = actions.add_parser("extract", help="objects out of the drives")
    extract.add_argument("--bucket", default="")
    extract.add_argument("--key")
    extract.add_argument("--prefix", default="")
    extract.add_argument("--all", action="store_true", help="all objects, into a directory")
    extract.add_argument("--blob", default="", help="an older version, by its blob as listed")
    extract.add_argument("--out", required=True, metavar="PATH")
    extract.add_argument("--master-key-file", default="", metavar="FILE", help="of SSE-S3")
    extract.add_argument(
        "--customer-key-file", default="", metavar="FILE", help="of SSE-C: base64, one to a line"
    )
    rebuild = actions.add_parser("rebuild", help="metadata from all that is on the drives")
    restore = actions.add_parser("restore", help="metadata from a snapshot, and nothing newer")
    restore.add_argument("--snapshot", required=True, metavar=f"FILE|{NEWEST}")
    for target in (rebuild, restore):
        target.add_argument("--into", required=True, choices=("sqlite", "etcd"))
        target.add_argument("--pg-count", type=int, default=PG_COUNT_DEFAULT)
        target.add_argument("--region", default="us-east-1", help="of buckets that are made")
    rebuild.add_argument("--ignore-metadata", action="store_true", help="use shards alone")
    accept = actions.add_parser("confirm", help="accept a rebuild or restore")
    for target in (rebuild, restore, accept):
        target.add_argument("--data", default="./data")
        target.add_argument("--etcd", default="", metavar="URL[,URL…]")
    for each in (listing, extract, rebuild, restore, accept):
        optional = each in (restore, accept)
        each.add_argument("drives", nargs="*" if optional else "+", metavar="DRIVE")
        each.add_argument("--json", action="store_true", help="a line of JSON for each fact")


def run(arguments: argparse.Namespace, engines: Engines) -> int:
    """Run a subcommand; the exit code."""
    actions: dict[str, Callable[[argparse.Namespace, Engines], int]] = {
        "list": _list,
        "extract": _extract,
        "rebuild": _rebuild,
        "restore": _restore,
        "confirm": _confirm,
    }
    try:
        return actions[arguments.action](arguments, engines)
    except (RescueError, NotReadable, EngineError) as error:
        print(f"s3gw: {error}", file=sys.stderr)
        return EXIT_REFUSED


class _Output:
    """Facts, as lines of a table or of JSON. What clients have chosen is shown without control
    characters."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json

    def line(self, text: str, /, **fact: object) -> None:
        shown = json.dumps(fact) if self._json else _printable(text)
        print(shown, flush=True)

    def aside(self, text: str) -> None:
        if not self._json:
            print(_printable(text), flush=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _warn(text: str) -> None:
    print(f"warning: {_printable(text)}", file=sys.stderr, flush=True)


def _catalog(drives: Sequence[RescueDrive]) -> Catalog:
    """Read the drives; progress is shown at a terminal."""
    catalog = Catalog(drives)
    shown = 0.0

    def progress(group: str) -> None:
        nonlocal shown
        if sys.stderr.isatty() and time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"\r{group}: {catalog.blobs} blobs\x1b[K", end="", file=sys.stderr, flush=True)

    catalog.fill(progress)
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr)
    if catalog.scan.unreadable:
        _warn(
            f"{catalog.scan.unreadable} times a file or directory could not be read (a drive that "
            "fails, or permissions): what is in it counts as not there"
        )
    return catalog


def _list(arguments: argparse.Namespace, engines: Engines) -> int:
    output = _Output(arguments.json)
    catalog = _catalog(open_drives(arguments.drives))
    output.aside(f"{'STATE':9} {'SHARDS':>7} {'SIZE':>14} {'MODIFIED':20} {'BLOB':32} OBJECT")
    lost = 0
    for bucket, key, version, current in _chosen(catalog, arguments):
        lost += current and version.state == "lost"
        _list_one(output, bucket, key, version, current)
    for bucket, key, text in catalog.doubts():
        name = f"{bucket}/{key}" if bucket else key
        output.line(f"outlier   {name}: {text}", kind="outlier", bucket=bucket, key=key, text=text)
    scan = catalog.scan
    output.line(
        f"{catalog.blobs} blobs in {scan.shards} shards; {scan.damaged} damaged, "
        f"{scan.outliers} that contradict others, {scan.unreadable} unreadable, {scan.foreign} "
        f"other files; {catalog.unknown} blobs whose footer cannot be read, {scan.other_stores} of "
        "another store",
        kind="summary",
        blobs=catalog.blobs,
        unknown_blobs=catalog.unknown,
        **asdict(scan),
    )
    output.aside("What was deleted shortly before, or never published, is listed as well.")
    catalog.close()
    return EXIT_LOST if lost else EXIT_DONE


def _chosen(
    catalog: Catalog, arguments: argparse.Namespace
) -> Iterator[tuple[str, str, Version, bool]]:
    """Versions with their key, and whether each is the newest of it that can be read, or the
    newest if none can."""
    key = getattr(arguments, "key", None)
    for bucket, name, versions in catalog.versions(arguments.bucket, arguments.prefix, key):
        current = next((v for v in versions if v.state != "lost"), versions[0])
        for version in versions:
            yield bucket, name, version, version is current


def _list_one(output: _Output, bucket: str, key: str, version: Version, current: bool) -> None:
    footer = version.footer
    moment = datetime.fromtimestamp(footer.modified_ms / 1000, UTC).isoformat(timespec="seconds")
    note = "" if current else "  (older, or not published)"
    output.line(
        f"{version.state:9} {version.shards:3}/{version.width or '?':<3} {footer.size:14} "
        f"{moment[:19]:20} {version.blob.blob.hex()} {bucket}/{key}{note}",
        kind="object",
        bucket=bucket,
        key=key,
        size=footer.size,
        etag=footer.etag,
        modified_ms=footer.modified_ms,
        sequence=footer.sequence,
        multipart=footer.kind == "manifest",
        state=version.state,
        shards=version.shards,
        shards_expected=version.width,
        current=current,
        blob=version.blob.blob.hex(),
    )


def _extract(arguments: argparse.Namespace, engines: Engines) -> int:
    single = arguments.key is not None
    if single == (arguments.all or bool(arguments.prefix)) or (single and not arguments.bucket):
        raise RescueError("name one object with --bucket and --key, or many with --all or --prefix")
    output = _Output(arguments.json)
    catalog = _catalog(open_drives(arguments.drives))
    target = Path(arguments.out).absolute()
    keys = _keys(arguments)
    folder = None if single else Folder(target, keys)
    done = lost = 0
    for bucket, key, version, current in _chosen(catalog, arguments):
        wanted = version.blob.blob.hex() == arguments.blob if arguments.blob else current
        if not wanted:
            continue
        try:
            if folder is None:
                written = extract_to(version, target, keys)
            else:
                written = folder.add(bucket, key, version)
        except NotReadable as error:
            lost += 1
            _warn(f"{bucket}/{key}: {error}")
            continue
        done += 1
        output.line(
            f"{written.size:14} {bucket}/{key} -> {written.path}",
            kind="extracted",
            bucket=bucket,
            key=key,
            size=written.size,
            path=written.path,
        )
    if folder is not None:
        folder.close()
    elif not done and not lost:
        raise RescueError(f"{arguments.bucket}/{arguments.key} is not on these drives")
    return EXIT_LOST if lost else EXIT_DONE


def _keys(arguments: argparse.Namespace) -> RescueKeys:
    """The keys in the files that are named. Raises RescueError."""
    master = customer = None
    try:
        if arguments.master_key_file:
            master = read_file(Path(arguments.master_key_file))
        if arguments.customer_key_file:
            customer = read_file(Path(arguments.customer_key_file))
    except BadMasterKeys as error:
        raise RescueError(str(error)) from error
    return RescueKeys(master, customer.all if customer is not None else ())


def _rebuild(arguments: argparse.Namespace, engines: Engines) -> int:
    drives = open_drives(arguments.drives)

    def base(catalog: Catalog) -> sources.Base | None:
        if arguments.ignore_metadata:
            return None
        return sources.newest(catalog, drives[0].store_id, _warn)

    return _recover(arguments, engines, drives, base, add_newer=True)


def _restore(arguments: argparse.Namespace, engines: Engines) -> int:
    drives = open_drives(arguments.drives) if arguments.drives else []
    if arguments.snapshot == NEWEST and not drives:
        raise RescueError(f"name the drives to find the {NEWEST.replace('-', ' ')} on")

    def base(catalog: Catalog) -> sources.Base:
        if arguments.snapshot != NEWEST:
            found = sources.load_file(arguments.snapshot)
        else:
            newest = sources.newest(catalog, drives[0].store_id, _warn, journals=False)
            if newest is None:
                raise RescueError("no snapshot that can be read is on these drives")
            found = newest
        if drives and found.store_id != drives[0].store_id:
            raise RescueError(f"the snapshot is of store {found.store_id}, not of these drives'")
        return found

    if arguments.into == "sqlite" and not drives:
        raise RescueError("name the drives that the restored metadata is for")
    return _recover(arguments, engines, drives, base, add_newer=False)


def _recover(
    arguments: argparse.Namespace,
    engines: Engines,
    drives: Sequence[RescueDrive],
    find_base: Callable[[Catalog], sources.Base | None],
    *,
    add_newer: bool,
) -> int:
    output = _Output(arguments.json)
    data = Path(arguments.data).absolute()
    if arguments.into == "etcd" and not arguments.etcd:
        raise RescueError("name the etcd endpoints with --etcd URL[,URL…]")

    def found(finding: Finding) -> None:
        name = f"{finding.bucket}/{finding.key}" if finding.bucket else finding.key
        output.line(f"{finding.kind:10} {name}: {finding.text}", **asdict(finding))

    async def fill(kv: KV) -> Rebuild:
        catalog = _catalog(drives)
        base = find_base(catalog)
        weights = {} if arguments.into == "sqlite" else _capacities(drives)
        plan = Plan(
            store_id=drives[0].store_id if drives else _store_of(base),
            region=arguments.region,
            pg_count=arguments.pg_count,
            now_ms=time.time_ns() // 1_000_000,
            add_newer=add_newer,
            weights=weights,
        )
        try:
            rebuild = Rebuild(kv, catalog, base, plan, found)
            await recover(rebuild)
        finally:
            catalog.close()
            if base is not None:
                base.rows.close()
        return rebuild

    async def go() -> Rebuild:
        if arguments.into == "sqlite":
            return await into_sqlite(data, drives, engines.bare, fill)
        kv = await engines.etcd(arguments.etcd.split(","))
        try:
            return await fill(kv)
        finally:
            await kv.close()

    rebuild = asyncio.run(go())
    _summarize(output, rebuild)
    return EXIT_LOST if rebuild.report.findings.get("lost") else EXIT_DONE


def _store_of(base: sources.Base | None) -> str:
    assert base is not None
    return base.store_id


def _capacities(drives: Sequence[RescueDrive]) -> dict[str, int]:
    """The size of each drive's file system, which is its weight in a layout."""
    sizes = {}
    for drive in drives:
        found = os.statvfs(drive.path)
        sizes[drive.drive_id] = found.f_frsize * found.f_blocks
    return sizes


def _summarize(output: _Output, rebuild: Rebuild) -> None:
    report = rebuild.report
    source = (
        f"{report.source} at revision {report.source_revision}" if report.source else "no metadata"
    )
    output.line(
        f"from {source}: {report.rows} keys; from shards: {report.objects} objects, "
        f"{report.buckets} buckets. Incarnation {report.incarnation}.",
        kind="summary",
        **asdict(report),
    )
    output.aside(
        "Deletes, copies and settings that are newer than that are not on the drives and could not "
        "be seen.\nShards that nothing refers to are kept until you have looked at the result and "
        "run `s3gw rescue confirm`."
    )


def _confirm(arguments: argparse.Namespace, engines: Engines) -> int:
    paths = [Path(path).absolute() for path in arguments.drives]

    async def go() -> bool:
        if arguments.etcd:
            kv = await engines.etcd(arguments.etcd.split(","))
        else:
            kv = await engines.embedded(arguments.data, paths)
        try:
            return await confirm(kv)
        finally:
            await kv.close()

    confirmed = asyncio.run(go())
    text = "confirmed" if confirmed else "there was nothing to confirm"
    _Output(arguments.json).line(text, kind="confirmed", confirmed=confirmed)
    return EXIT_DONE
