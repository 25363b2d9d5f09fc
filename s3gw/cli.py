"""The command line: `s3gw up | gateway | worker | node | drive … | config | ca … | admin …`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from s3gw import __version__
from s3gw.config import Config, ConfigError, load
from s3gw.logs import configure

EXIT_USAGE = 2

# flag: (configuration key, help); of a list key the flag may be repeated or take commas.
FLAGS: dict[str, tuple[str, str]] = {
    "--data": ("data", "directory of metadata and drives (./data)"),
    "--drives": ("drives", "number of drive directories in the data directory (6)"),
    "--drive": ("drive", "a drive's directory; repeat it for each drive, instead of --drives"),
    "--profile": ("profile", "data and parity shards, as in 4+2"),
    "--failure-domain": ("failure_domain", "of a new store's profile: drive, node or zone"),
    "--s3": ("s3", "HOST:PORT of the S3 API (127.0.0.1:9000)"),
    "--admin": ("admin", "HOST:PORT of the admin API (127.0.0.1:9001)"),
    "--listen": ("listen", "HOST:PORT of the node"),
    "--advertise": ("advertise", "HOST:PORT that gateways reach the node at (that of --listen)"),
    "--zone": ("zone", "failure domain of the node or gateway: rack, host or site"),
    "--etcd": ("etcd", "URL[,URL…] of etcd"),
    "--region": ("region", "region that the store answers for (us-east-1)"),
    "--domains": ("domains", "domains for virtual-host-style addressing, comma separated"),
    "--website-domains": ("website_domains", "domains for websites, comma separated"),
    "--processes": ("processes", "worker processes (one per core)"),
    "--tls-dir": ("tls_dir", "directory with ca.pem, cert.pem and key.pem: mutual TLS"),
    "--s3-tls-cert": ("s3_tls_cert", "PEM file: certificate, with its chain, of the S3 port"),
    "--s3-tls-key": ("s3_tls_key", "PEM file: its key, which nobody else may read"),
    "--admin-tls-cert": ("admin_tls_cert", "certificate of the admin port (that of the S3 port)"),
    "--admin-tls-key": ("admin_tls_key", "its key"),
    "--join": ("join", "https://HOST:PORT of `s3gw ca serve`, to get a certificate with --token"),
    "--token": ("token", "what `s3gw ca token` printed; better given as S3GW_TOKEN"),
    "--insecure-listen": ("insecure_listen", "allow plain HTTP between machines"),
    "--log-level": ("log_level", "debug, info, warning or error"),
}
PORT_TLS_FLAGS = ("--s3-tls-cert", "--s3-tls-key", "--admin-tls-cert", "--admin-tls-key")
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "up": (
        "run everything on this machine",
        (
            "--data",
            "--drives",
            "--drive",
            "--profile",
            "--s3",
            "--admin",
            "--region",
            "--domains",
            "--website-domains",
            "--processes",
            *PORT_TLS_FLAGS,
            "--log-level",
        ),
    ),
    "gateway": (
        "run a gateway of a cluster",
        (
            "--s3",
            "--admin",
            "--etcd",
            "--profile",
            "--failure-domain",
            "--region",
            "--domains",
            "--website-domains",
            "--zone",
            "--processes",
            *PORT_TLS_FLAGS,
            "--tls-dir",
            "--insecure-listen",
            "--log-level",
        ),
    ),
    "worker": (
        "do background work of a cluster, without an S3 port",
        (
            "--admin",
            "--etcd",
            "--profile",
            "--region",
            "--zone",
            "--processes",
            "--admin-tls-cert",
            "--admin-tls-key",
            "--tls-dir",
            "--insecure-listen",
            "--log-level",
        ),
    ),
    "node": (
        "run a storage node of a cluster",
        (
            "--data",
            "--drive",
            "--listen",
            "--advertise",
            "--zone",
            "--etcd",
            "--tls-dir",
            "--join",
            "--token",
            "--insecure-listen",
            "--log-level",
        ),
    ),
    "config": ("print the effective configuration", tuple(FLAGS)),
}
# Commands with arguments of their own: summary, and the module whose `add_arguments` declares them.
# It is loaded only for its command: an `admin` that waits for the libraries of `rescue` is slow.
FURTHER: dict[str, tuple[str, str]] = {
    "ca": ("certificates of the cluster: make an authority, issue, let nodes join", "s3gw.ca"),
    "rescue": ("recover objects and metadata from the drives alone", "s3gw.rescue.commands"),
    "admin": ("operate a running store over its admin port", "s3gw.admin.command"),
}
LISTS = frozenset({"--drive", "--etcd", "--domains", "--website-domains"})
SWITCHES = frozenset({"--insecure-listen"})


def parser(wanted: str = "") -> argparse.ArgumentParser:
    """The argument parser; of the commands of FURTHER with the arguments of `wanted`."""
    root = argparse.ArgumentParser(prog="s3gw", description="An S3-compatible object store.")
    root.add_argument("--version", action="version", version=f"s3gw {__version__}")
    commands = root.add_subparsers(dest="command", required=True)
    for name, (summary, flags) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--config", metavar="FILE", help="TOML file of settings")
        for flag in flags:
            key, explanation = FLAGS[flag]
            if flag in LISTS:
                command.add_argument(flag, dest=key, help=explanation, action="append")
            elif flag in SWITCHES:
                command.add_argument(
                    flag, dest=key, help=explanation, action="store_const", const=True
                )
            else:
                command.add_argument(flag, dest=key, help=explanation)
    _add_drive_parser(commands.add_parser("drive", help="drives of a store on this machine"))
    for name, (summary, module) in FURTHER.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == wanted:
            importlib.import_module(module).add_arguments(command)
    return root


def _add_drive_parser(drive: argparse.ArgumentParser) -> None:
    steps = drive.add_subparsers(dest="step", required=True, metavar="COMMAND")
    summary = "make an empty directory a new drive of the store"
    add = steps.add_parser("add", help=summary, description=summary)
    add.add_argument("path", help="the new drive's directory")
    add.add_argument("--config", metavar="FILE", help="TOML file of settings")
    for flag in ("--data", "--drives"):
        add.add_argument(flag, dest=FLAGS[flag][0], help=FLAGS[flag][1])
    add.add_argument("--drive", action="append", help="a drive that the store has already")


def flags_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings given as flags."""
    values: dict[str, Any] = {}
    for flag, (key, _) in FLAGS.items():
        value = getattr(arguments, key, None)
        if value is not None:
            values[key] = [v for each in value for v in each.split(",")] if flag in LISTS else value
    return values


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    words = sys.argv[1:] if argv is None else argv
    # No flag comes before the command.
    arguments = parser(words[0] if words else "").parse_args(words)
    if arguments.command in ("ca", "admin"):
        return int(arguments.run(arguments))
    from s3gw import launch  # the engines and drives: most of a second that `admin` need not wait

    if arguments.command == "rescue":
        return launch.rescue(arguments)
    if arguments.command == "drive":
        return launch.drive_add(arguments)
    try:
        config = load(flags_given(arguments), file=arguments.config)
    except ConfigError as error:
        print(f"s3gw: {error}", file=sys.stderr)
        return EXIT_USAGE
    if arguments.command == "config":
        return show(config)
    configure(config.log_level)
    return launch.run(launch.ROLES[arguments.command], config)


def show(config: Config) -> int:
    """Print the settings, secrets hidden."""
    print(json.dumps(config.shown(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
