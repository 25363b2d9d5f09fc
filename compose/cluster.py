"""`make cluster`: etcd, nine nodes in three zones and two gateways, until Ctrl-C.

Nine nodes and not six, so that the shards of a lost node have somewhere to go. Data, credentials
and the master key (unless `S3GW_MASTER_KEY` is set) stay in ./cluster-data, so a second start finds
them.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from compose.local import MASTER_KEY_SETTINGS, Cluster, Credentials, StartError

_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94, 91, 31)
_TAG_WIDTH = 9


class TaggedLog:
    """Prints `tag | line`, one colour per tag when standard output is a terminal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._colours: dict[str, int] = {}
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def __call__(self, tag: str, line: str) -> None:
        with self._lock:
            colour = self._colours.setdefault(tag, _COLOURS[len(self._colours) % len(_COLOURS)])
            label = f"{tag:<{_TAG_WIDTH}} |"
            print(f"\x1b[{colour}m{label}\x1b[0m" if self._coloured else label, line, flush=True)


def stored_credentials(path: Path) -> Credentials:
    """The credentials in `path`, generated and written with mode 0600 when it does not exist."""
    if path.exists():
        stored = json.loads(path.read_text())
        return Credentials(stored["access_key"], stored["secret_key"])
    credentials = Credentials.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(
            {"access_key": credentials.access_key, "secret_key": credentials.secret_key}, file
        )
    return credentials


def master_key_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment of this program says of a master key; that of the store is another."""
    named = (name for name in MASTER_KEY_SETTINGS if environment.get(name))
    return {name: environment[name] for name in named}


def describe(cluster: Cluster) -> str:
    """What a user needs to talk to the cluster, to be copied and pasted."""
    lines = [
        "",
        *(f"S3     {gateway.endpoint}   admin {gateway.admin}" for gateway in cluster.gateways),
        f"etcd   {cluster.etcd.url}",
        f"key    {cluster.master_key or 'as set in the environment'}: the master key of encryption,"
        " without which what is encrypted is lost",
        "",
        f"export AWS_ACCESS_KEY_ID={cluster.credentials.access_key}",
        f"export AWS_SECRET_ACCESS_KEY={cluster.credentials.secret_key}",
        "export AWS_DEFAULT_REGION=us-east-1",
        f"aws --endpoint-url {cluster.endpoint} s3 mb s3://first",
        "",
        "Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("cluster-data"))
    parser.add_argument("--nodes", type=int, default=9)
    parser.add_argument("--zones", type=int, default=3)
    parser.add_argument("--gateways", type=int, default=2)
    arguments = parser.parse_args()

    directory = arguments.data.resolve()
    # SIGTERM ends this program as Ctrl-C does, also while the cluster is still starting; and
    # SIGINT does so even when a shell that starts jobs in the background had it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    cluster = Cluster(
        directory,
        nodes=arguments.nodes,
        zones=arguments.zones,
        gateways=arguments.gateways,
        credentials=stored_credentials(directory / "credentials.json"),
        environment=master_key_settings(os.environ),
        sink=TaggedLog(),
    )
    try:
        cluster.start()
        print(describe(cluster), flush=True)
        signal.pause()
    except StartError as error:
        print(f"the cluster did not start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
