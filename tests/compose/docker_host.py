"""A Docker host of sorts: runs the services of a compose file as processes, and talks to them.

    python -m tests.compose.docker_host FILE DIRECTORY      (in namespaces of its own, see below)

Each service has an address of its own in 127.0.1.0/24 and its name in an /etc/hosts of its own, so
that names, ports and certificates are exactly those of the file. For that the process runs in a
mount and a network namespace: `unshare --mount --net`, as root or with `--map-root-user`. What
differs from containers: paths of volumes lead into DIRECTORY, `0.0.0.0` becomes the service's own
address, and files keep their owner. Prints one JSON object: what was seen.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from compose.local import Process, answers, wait_until

REPOSITORY = Path(__file__).parents[2]
READY_SECONDS = 120.0
ENTRYPOINTS = {"s3gw": "s3gw", "etcd": "etcd"}
IMAGE_COMMANDS = {
    "haproxy": ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"],
    "prometheus": [
        *("prometheus", "--config.file=/etc/prometheus/prometheus.yml"),
        "--storage.tsdb.path=/prometheus",
    ],
}
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def load(path: Path, environment: dict[str, str]) -> dict[str, Any]:
    """A compose file with its variables replaced, as the Compose Specification says."""

    def replace(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name, operator, rest = match["name"], match["operator"], match["rest"]
        if environment.get(name):
            return environment[name]
        if operator == ":-":
            return rest
        raise KeyError(f"{name}: {rest}")

    pattern = re.compile(
        r"(?P<escaped>\$\$)|\$\{(?P<name>[A-Z_0-9]+)(?:(?P<operator>:[-?])(?P<rest>[^}]*))?\}"
    )
    document: dict[str, Any] = yaml.safe_load(pattern.sub(replace, path.read_text()))
    return document


class Host:
    """The services of one file."""

    def __init__(self, document: dict[str, Any], base: Path, directory: Path) -> None:
        self.services: dict[str, dict[str, Any]] = document["services"]
        self.base = base
        self.directory = directory
        self.address = {name: f"127.0.1.{n}" for n, name in enumerate(self.services, 1)}
        self.processes: dict[str, Process] = {}

    def enter(self) -> None:
        """Bring loopback up and put the services' names into /etc/hosts."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = struct.pack("16sH14x", b"lo", 0)
            flags = struct.unpack("16sH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
        hosts = self.directory / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{a} {n}" for n, a in self.address.items())]
        hosts.write_text("\n".join(lines) + "\n")
        subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
        tools = self.directory / "bin"
        tools.mkdir()
        (tools / "chown").write_text("#!/bin/sh\n")  # files keep their owner here
        (tools / "chown").chmod(0o755)

    def path(self, service: str, text: str) -> str:
        """A text with the service's volumes in the place where they are here."""
        for volume in self.services[service].get("volumes", []):
            source, target = volume.split(":")[:2]
            place = self.directory / "volumes" / source
            if source.startswith("."):
                place = self.base / source
            else:
                place.mkdir(parents=True, exist_ok=True)
            text = re.sub(rf"(?<![\w/.-]){re.escape(target)}(?![\w.-])", str(place), text)
        return text.replace("0.0.0.0", self.address[service])

    def argv(self, service: str) -> list[str]:
        """The command line of a service."""
        definition = self.services[service]
        if "entrypoint" in definition:
            words = [*definition["entrypoint"], *definition["command"]]
        elif definition.get("build"):
            words = [ENTRYPOINTS[definition["build"]["target"]], *definition["command"]]
        else:
            image = definition["image"].split(":")[0].split("/")[-1]
            words = [*IMAGE_COMMANDS[image], *definition.get("command", [])]
            if image == "prometheus":
                words.append(f"--web.listen-address={self.address[service]}:9090")
        return [self.path(service, word) for word in words]

    def environment(self, service: str) -> dict[str, str]:
        own = {
            name: str(text).replace("*:", f"{self.address[service]}:")
            for name, text in self.services[service].get("environment", {}).items()
        }
        tools = f"{self.directory / 'bin'}:{Path(sys.executable).parent}"
        return {"PATH": f"{tools}:{os.environ['PATH']}", **own}

    def run(self, service: str) -> None:
        """A service that ends."""
        environment = {**os.environ, **self.environment(service)}
        subprocess.run(self.argv(service), check=True, env=environment)

    def start(self, service: str) -> Process:
        log = self.directory / f"{service}.log"
        words = self.argv(service)
        executable = words[0]
        if executable == "s3gw":
            words[:1] = [sys.executable, "-m", "s3gw"]
        process = Process(service, words, log, self.environment(service))
        process.start()
        self.processes[service] = process
        return process

    def healthy(self, service: str) -> bool:
        """Whether the health check of the file, run as it is, succeeds."""
        words = self.services[service]["healthcheck"]["test"][1:]
        words = [word.replace("127.0.0.1", self.address[service]) for word in words]
        words[0] = sys.executable if words[0] == "python" else words[0]
        done = subprocess.run(words, check=False, capture_output=True)
        return done.returncode == 0

    def stop(self) -> list[str]:
        """End everything at once; returns the services that did not end well."""
        for process in reversed(self.processes.values()):
            process.terminate()
        ended = {name: process.stop() for name, process in self.processes.items()}
        return [f"{name}: {code}" for name, code in ended.items() if code not in (0, -15, 143)]


def client(endpoint: str, environment: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=environment["S3GW_ROOT_ACCESS_KEY"],
        aws_secret_access_key=environment["S3GW_ROOT_SECRET_KEY"],
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 8}, s3={"addressing_style": "path"}),
    )


def one_machine(host: Host, environment: dict[str, str]) -> dict[str, Any]:
    host.start("s3gw")
    wait_until(lambda: host.healthy("s3gw"), what="s3gw", seconds_max=READY_SECONDS)
    s3 = client(f"http://{host.address['s3gw']}:9000", environment)
    return {"read": written_and_read(s3)}


def written_and_read(s3: Any) -> bool:
    s3.create_bucket(Bucket="compose")
    body = os.urandom(300_000)
    s3.put_object(Bucket="compose", Key="k", Body=body)
    read: bytes = s3.get_object(Bucket="compose", Key="k")["Body"].read()
    return read == body


def cluster(host: Host, environment: dict[str, str]) -> dict[str, Any]:
    host.run("pki")
    for name in host.services:
        if name.startswith(("etcd", "node", "gateway", "load-balancer", "prometheus")):
            host.start(name)
    for name in ("gateway-1", "gateway-2"):
        wait_until(lambda name=name: host.healthy(name), what=name, seconds_max=READY_SECONDS)
    balancer = host.address["load-balancer"]
    wait_until(lambda: reached(balancer), what="load balancer", seconds_max=READY_SECONDS)
    s3 = client("http://load-balancer:9000", environment)
    seen: dict[str, Any] = {"read": written_and_read(s3)}
    wait_until(lambda: len(targets_up()) == 2, what="prometheus", seconds_max=READY_SECONDS)
    seen["targets"] = targets_up()
    host.processes["gateway-1"].kill()
    del host.processes["gateway-1"]
    seen["read_without_gateway_1"] = bool(s3.get_object(Bucket="compose", Key="k")["Body"].read())
    return seen


def reached(balancer: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{balancer}:9000/", timeout=2)
    except urllib.error.HTTPError as error:
        return error.code == 403
    except OSError:
        return False
    return True


def targets_up() -> list[str]:
    if not answers("http://prometheus:9090/-/ready"):
        return []
    query = "http://prometheus:9090/api/v1/query?query=up%3D%3D1"
    with urllib.request.urlopen(query, timeout=5) as reply:
        found = json.load(reply)["data"]["result"]
    return sorted(each["metric"]["instance"] for each in found)


def main() -> None:
    path, directory = Path(sys.argv[1]), Path(sys.argv[2])
    environment = {k: v for k, v in os.environ.items() if k.startswith(("S3GW_ROOT", "GRAFANA"))}
    for name in environment:
        del os.environ[name]
    document = load(path, environment)
    host = Host(document, path.parent, directory)
    host.enter()
    try:
        seen = (cluster if len(host.services) > 1 else one_machine)(host, environment)
    finally:
        ended_badly = host.stop()
    print(json.dumps({**seen, "ended_badly": ended_badly}))


def command(path: Path, directory: Path) -> str:
    """The command line that runs a file in namespaces of its own."""
    rootless = [] if os.geteuid() == 0 else ["--map-root-user"]
    words = ["unshare", "--mount", "--net", *rootless, sys.executable]
    words += ["-m", "tests.compose.docker_host", str(path), str(directory)]
    return shlex.join(words)


if __name__ == "__main__":
    main()
