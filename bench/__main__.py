"""`make bench`: start a store, measure it, print the table.

make bench                                   one machine (`s3gw up`)
make bench ARGS="--form cluster"             etcd, six nodes and one gateway as processes
make bench ARGS="--quick"                    a tenth of the work, for a first look
make bench ARGS="--endpoint http://HOST:PORT --access-key K --secret-key S --pid PID"
                                             any S3 server; PID (repeatable) is the root of a
                                             process tree whose CPU and memory are accounted
"""

import argparse
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.layout import layout_row
from bench.memory import filled_page_cache
from bench.processes import Servers
from bench.results import CLUSTER, UP, Table
from bench.steps import MIB, Bench
from bench.wire import UnexpectedReply
from bench.yardstick import put_yardstick, python_yardstick
from compose.local import Cluster, StartError, Up, running
from compose.s3_http import S3Http, Signer

WARM_UP_OBJECTS = 80
SECTIONS = ("large", "small", "kept", "list", "memory", "layout")


@dataclass(frozen=True)
class Scale:
    """How much work each measurement does."""

    large_count: int
    parallel_count: int
    small_alone: int
    small_together: int
    list_keys: int
    list_rounds: int
    memory_bytes: int
    memory_clients: int
    layout_nodes: int


FULL = Scale(8, 64, 500, 4000, 10_000, 9, 256 * MIB, 16, 1000)
QUICK = Scale(3, 16, 100, 800, 1_000, 5, 64 * MIB, 4, 100)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--form", choices=(UP, CLUSTER), default=UP)
    parser.add_argument("--quick", action="store_true", help="less work, noisier figures")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="these sections alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("build/bench"),
        help="where the store keeps its data while it is measured",
    )
    parser.add_argument(
        "--cold",
        action="store_true",
        help="do not fill the page cache first (see bench/memory.py)",
    )
    parser.add_argument("--endpoint", help="measure this server and start none")
    parser.add_argument("--access-key", default=os.environ.get("S3_ACCESS_KEY", ""))
    parser.add_argument("--secret-key", default=os.environ.get("S3_SECRET_KEY", ""))
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--pid", type=int, action="append", default=[])
    return parser.parse_args()


@contextmanager
def _target(arguments: argparse.Namespace) -> Iterator[tuple[S3Http, Servers]]:
    """The server to measure: the one that was named, or one started for this."""
    if arguments.endpoint:
        signer = Signer(arguments.access_key, arguments.secret_key, arguments.region)
        yield S3Http(arguments.endpoint, signer), Servers(arguments.pid)
        return
    directory = arguments.directory.resolve() / f"{arguments.form}-{secrets.token_hex(4)}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    store = Up(directory) if arguments.form == UP else Cluster(directory, nodes=6, gateways=1)
    try:
        with running(store):
            pids = [process.pid for process in store.processes]
            gateways = pids if isinstance(store, Up) else [g.process.pid for g in store.gateways]
            signer = Signer(store.credentials.access_key, store.credentials.secret_key)
            yield S3Http(store.endpoint, signer), Servers(pids, gateways)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _page_cache(arguments: argparse.Namespace) -> AbstractContextManager[str]:
    """The page cache in its steady state, if wanted, while the store is measured."""
    if arguments.cold:
        return nullcontext("the page cache was left as it was (--cold)")
    return filled_page_cache(arguments.directory.resolve())


def _warm_up(bench: Bench) -> None:
    """Write until the memory that the kernel keeps free has been used up as well."""
    bench.large(64 * MIB, WARM_UP_OBJECTS, 4)


def _measure(
    bench: Bench, table: Table, scale: Scale, sections: tuple[str, ...], directory: Path
) -> None:
    if "large" in sections:
        table.add(put_yardstick(directory))
        for signed in (False, True):
            put, get = bench.large(64 * MIB, scale.large_count, 1, signed=signed)
            table.add(put)
            if not signed:
                table.add(get)
        for row in bench.large(16 * MIB, scale.parallel_count, 8):
            table.add(row)
    if "small" in sections:
        table.add(python_yardstick())
        for count, concurrency in ((scale.small_alone, 1), (scale.small_together, 16)):
            for row in bench.small(count, concurrency):
                table.add(row)
        for row in bench.small(scale.small_together, 16, signed=True):
            table.add(row)
    if "kept" in sections:
        _measure_kept(bench, table, scale)
    if "list" in sections:
        table.add(bench.listing(scale.list_keys, scale.list_rounds))
    if "memory" in sections and bench.servers.known:
        for row in bench.memory(scale.memory_bytes, scale.memory_clients):
            table.add(row)
    if "layout" in sections:
        table.add(layout_row(scale.layout_nodes))


# How a bucket keeps its objects: the sub-resource that says so, and its document.
SEALED = (
    "encryption",
    b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>"
    b"<SSEAlgorithm>AES256</SSEAlgorithm>"
    b"</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
)
VERSIONED = (
    "versioning",
    b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
)


def _measure_kept(bench: Bench, table: Table, scale: Scale) -> None:
    """What encryption with the store's key costs, and versioning."""
    with _bucket(bench, *SEALED) as sealed:
        for row in sealed.large(64 * MIB, scale.large_count, 1, what="SSE-S3"):
            table.add(row)
        for row in sealed.small(scale.small_together, 16, what="SSE-S3"):
            table.add(row)
    with _bucket(bench, *VERSIONED) as versioned:
        for row in versioned.small(scale.small_together, 16, what="versioned", methods=("PUT",)):
            table.add(row)


@contextmanager
def _bucket(bench: Bench, subresource: str, document: bytes) -> Iterator[Bench]:
    """The measurements over a bucket of their own, with this setting. What is left of versions goes
    with the store; at a server that was named the bucket is left."""
    name = f"bench-{secrets.token_hex(6)}"
    for query, body in (("", b""), (subresource, document)):
        reply = bench.http.request("PUT", f"/{name}", query, body=body)
        if reply.status != 200:
            raise UnexpectedReply(f"PUT /{name}?{query}: {reply.status} {reply.code}")
    yield Bench(bench.http, bench.servers, name)
    bench.http.request("DELETE", f"/{name}")


def main() -> int:
    arguments = _arguments()
    scale = QUICK if arguments.quick else FULL
    sections = tuple(arguments.only or SECTIONS)
    form = "given" if arguments.endpoint else arguments.form
    try:
        with _page_cache(arguments) as said, _target(arguments) as (http, servers):
            print(said, flush=True)
            servers.mark_idle()
            bucket = f"bench-{secrets.token_hex(6)}"
            created = http.request("PUT", f"/{bucket}")
            if created.status != 200:
                raise UnexpectedReply(f"CreateBucket: {created.status} {created.code}")
            table = Table(form)
            idle = servers.resident_bytes() / MIB
            print(
                f"{form} at {http.netloc}, {os.cpu_count()} cores; "
                f"{servers.process_count()} server processes, {idle:.0f} MiB resident at rest; "
                "MB = 10⁶ bytes; bodies UNSIGNED-PAYLOAD unless named"
            )
            bench = Bench(http, servers, bucket)
            if not arguments.cold:
                _warm_up(bench)
            servers.wait_until_settled()
            table.heading()
            _measure(bench, table, scale, sections, arguments.directory.resolve())
            http.request("DELETE", f"/{bucket}")
            if arguments.json:
                about = {"cores": os.cpu_count(), "quick": arguments.quick, "idle_mib": idle}
                table.write_json(arguments.json, about)
    except (StartError, UnexpectedReply, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
