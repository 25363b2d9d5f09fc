"""A cluster with mutual TLS everywhere, and nodes that join, copy each other or lose a drive."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compose.local import Cluster, Process, answers, free_port, running, s3gw, wait_until
from compose.s3_http import S3Http, Signer

REFUSED = 2
SECONDS_MAX = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Short leases, so that what waits for one to end does not wait long."""
    environment = {
        "S3GW_PROCESSES": "1",
        "S3GW_LEASE_SECONDS": "4",
        "S3GW_HEARTBEAT_SECONDS": "1",
    }
    store = Cluster(
        tmp_path_factory.mktemp("secure") / "store",
        gateways=1,
        secure=True,
        environment=environment,
    )
    with running(store):
        yield store


def client(cluster: Cluster) -> S3Http:
    credentials = cluster.credentials
    return S3Http(cluster.endpoint, Signer(credentials.access_key, credentials.secret_key))


def certificates(cluster: Cluster) -> Path:
    assert cluster.certificates is not None
    return cluster.certificates.directory


def node_process(cluster: Cluster, tag: str, *flags: str) -> Process:
    """A further node of the cluster, with etcd's address and without certificates."""
    return Process(
        tag,
        s3gw("node", "--etcd", cluster.etcd_urls, *flags),
        cluster.directory / f"{tag}.log",
        {"S3GW_LEASE_SECONDS": "4", "S3GW_HEARTBEAT_SECONDS": "1"},
    )


@contextmanager
def started(process: Process, port: int) -> Iterator[Process]:
    """A node from when it has announced itself until the end of the block."""
    process.start()
    try:
        process.wait_ready(lambda: f"on 127.0.0.1:{port}" in process.log.read_text())
        yield process
    finally:
        process.stop()


def refused(process: Process) -> str:
    """The line with which a start is refused."""
    process.start()
    assert process._popen is not None
    assert process._popen.wait(SECONDS_MAX) == REFUSED
    lines = [line for line in process.log.read_text().splitlines() if line.startswith("s3gw: ")]
    assert len(lines) == 1
    return lines[0]


@contextmanager
def authority(cluster: Cluster) -> Iterator[str]:
    """`s3gw ca serve`; gives its URL."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    assert cluster.certificates is not None
    process = Process(
        "ca",
        s3gw("ca", "serve", "--dir", str(cluster.certificates.ca), "--listen", address),
        cluster.directory / "ca.log",
    )
    process.start()
    try:
        process.wait_ready(lambda: "signing for nodes" in process.log.read_text())
        yield f"https://{address}"
    finally:
        assert process.stop() == 0


def shown(port: int, context: ssl.SSLContext) -> bytes:
    """The certificate that a new connection to a node is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_objects_go_through(cluster: Cluster) -> None:
    body = os.urandom(5_000_000)
    assert client(cluster).request("PUT", "/secure").status == 200
    assert client(cluster).request("PUT", "/secure/large", body=body).status == 200
    assert client(cluster).request("PUT", "/secure/small", body=b"small").status == 200
    assert client(cluster).request("GET", "/secure/large").body == body
    assert client(cluster).request("GET", "/secure/small").body == b"small"


def test_nothing_is_served_without_a_certificate_of_the_right_role(cluster: Cluster) -> None:
    """Nodes, and etcd, whose content is the key to everything."""
    assert cluster.certificates is not None
    node = f"127.0.0.1:{cluster.nodes[0].port}/health"
    nobody = ssl.create_default_context(cafile=str(certificates(cluster) / "client" / "ca.pem"))
    assert answers(f"https://{node}", cluster.certificates.context("gateway"))
    assert answers(f"{cluster.etcd.url}/health", cluster.certificates.context("client"))
    for url, context in (
        (f"https://{node}", nobody),
        (f"https://{node}", cluster.certificates.context("client")),
        (f"https://{node}", cluster.certificates.context("etcd")),
        (f"http://{node}", None),
        (f"{cluster.etcd.url}/health", nobody),
        (f"{cluster.etcd.url.replace('https', 'http')}/health", None),
    ):
        with pytest.raises((urllib.error.URLError, OSError)):
            urllib.request.urlopen(url, timeout=5, context=context)


def test_certificates_are_replaced_while_everything_runs(cluster: Cluster) -> None:
    assert cluster.certificates is not None
    context = cluster.certificates.context("gateway")
    ports = [node.port for node in cluster.nodes]
    before = {port: shown(port, context) for port in ports}
    for role in ("node", "gateway"):
        cluster.certificates.issue(role, cluster.certificates.of(role))
    wait_until(
        lambda: all(shown(port, context) != before[port] for port in ports),
        what="all nodes show the new certificate",
    )
    assert client(cluster).request("PUT", "/secure/after", body=b"x" * 200_000).status == 200
    assert client(cluster).request("GET", "/secure/after").body == b"x" * 200_000


def test_a_node_joins_with_a_token_that_works_once(cluster: Cluster) -> None:
    assert cluster.certificates is not None
    token, port = cluster.certificates.token(), free_port()
    first, second = cluster.directory / "joined", cluster.directory / "refused"
    listen = ("--listen", f"127.0.0.1:{port}")
    with authority(cluster) as url:
        joining = ("--join", url, "--token", token)
        flags = ("--data", str(first), *listen, *joining)
        with started(node_process(cluster, "joined", *flags), port):
            assert answers(
                f"https://127.0.0.1:{port}/health", cluster.certificates.context("gateway")
            )
        line = refused(node_process(cluster, "second", "--data", str(second), *listen, *joining))
        assert "the token is not valid" in line
    names = sorted(path.name for path in (first / "tls").iterdir())
    assert names == ["ca.pem", "cert.pem", "crl.pem", "key.pem"]
    assert (first / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert not (second / "id.json").exists()
    # From now on without the authority and its token, whether they are still named or not.
    for more in ((), joining):
        with started(node_process(cluster, "again", "--data", str(first), *listen, *more), port):
            pass


def test_a_node_whose_certificate_is_revoked_is_shut_out_by_all(cluster: Cluster) -> None:
    """The one that has joined: by running nodes, by etcd, and by itself at its next start."""
    assert cluster.certificates is not None
    files = cluster.directory / "joined" / "tls"
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    context.load_cert_chain(files / "cert.pem", files / "key.pem")
    asked = [f"https://127.0.0.1:{node.port}/health" for node in cluster.nodes]
    asked.append(f"{cluster.etcd.url}/health")
    assert all(answers(url, context) for url in asked)
    cluster.certificates.revoke(files)
    wait_until(
        lambda: not any(answers(url, context) for url in asked), what="nobody answers the revoked"
    )
    (files / "crl.pem").write_bytes((certificates(cluster) / "ca" / "crl.pem").read_bytes())
    flags = ("--data", str(files.parent), "--listen", f"127.0.0.1:{free_port()}")
    assert "has been revoked" in refused(node_process(cluster, "revoked", *flags))
    body = os.urandom(300_000)
    assert client(cluster).request("PUT", "/secure/unhurt", body=body).status == 200
    assert client(cluster).request("GET", "/secure/unhurt").body == body


def test_gateways_and_workers_speak_tls_to_clients_too(cluster: Cluster) -> None:
    assert cluster.certificates is not None
    files = certificates(cluster) / "server"
    cluster.certificates.issue("server", files)
    trust = ssl.create_default_context(cafile=str(files / "ca.pem"))
    s3, admin, worker_admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
    shared = ("--etcd", cluster.etcd_urls, "--tls-dir", str(certificates(cluster) / "gateway"))
    pair = (str(files / "cert.pem"), str(files / "key.pem"))
    s3_tls = ("--s3-tls-cert", pair[0], "--s3-tls-key", pair[1])
    admin_tls = ("--admin-tls-cert", pair[0], "--admin-tls-key", pair[1])
    keys = cluster.credentials
    environment = {
        "S3GW_ROOT_ACCESS_KEY": keys.access_key,
        "S3GW_ROOT_SECRET_KEY": keys.secret_key,
        "S3GW_PROCESSES": "1",
    }
    commands = {
        "gateway-tls": ("gateway", "--s3", s3, "--admin", admin, *shared, *s3_tls),
        "worker-tls": ("worker", "--admin", worker_admin, *shared, *admin_tls),
    }
    log = cluster.directory
    started = [
        Process(tag, s3gw(*words), log / f"{tag}.log", environment)
        for tag, words in commands.items()
    ]
    try:
        for process in started:
            process.start()
        for process, port in zip(started, (admin, worker_admin), strict=True):
            process.wait_ready(lambda port=port: answers(f"https://{port}/health/ready", trust))
        signer = Signer(keys.access_key, keys.secret_key)
        secure = S3Http(f"https://{s3}", signer, trust)
        assert secure.request("PUT", "/secure/over-tls", body=b"x" * 100_000).status == 200
        assert client(cluster).request("GET", "/secure/over-tls").body == b"x" * 100_000
        wait_until(lambda: started[0].said(f"S3 on https://{s3}"), what="the gateway's line")
        wait_until(
            lambda: started[1].said(f"admin on https://{worker_admin}"), what="the worker's line"
        )
    finally:
        for process in started:
            process.stop()


def test_a_node_without_certificates_does_not_leave_the_machine(cluster: Cluster) -> None:
    data = str(cluster.directory / "plain")
    line = refused(
        node_process(
            cluster,
            "plain",
            "--data",
            data,
            "--listen",
            "0.0.0.0:9100",
            "--advertise",
            "10.0.0.1:9100",
        )
    )
    assert "listens on loopback only" in line
    line = refused(node_process(cluster, "plain-2", "--data", data, "--insecure-listen"))
    assert "etcd at https needs certificates" in line
    wrong = ("--tls-dir", str(certificates(cluster) / "gateway"))
    line = refused(node_process(cluster, "plain-3", "--data", data, *wrong))
    assert "has the role gateway, not node" in line
    assert not Path(data).exists()


def test_of_two_nodes_with_one_id_the_second_is_refused(cluster: Cluster) -> None:
    """A directory that is copied while its node runs, and one that was copied before it started
    again. The node itself goes on."""
    node = cluster.nodes[0]
    tls = ("--tls-dir", str(certificates(cluster) / "node"))

    def copy(name: str) -> Process:
        target = cluster.directory / name
        shutil.copytree(node.directory, target)
        listen = ("--listen", f"127.0.0.1:{free_port()}")
        return node_process(cluster, name, "--data", str(target), *listen, *tls)

    live = copy("live-copy")
    line = refused(live)
    assert f"lives at 127.0.0.1:{node.port}" in line
    node.process.kill()
    node.process.start()
    cluster.wait_node(node)
    wait_until(lambda: node.process.log.read_text().count("node: ") == 2, what="the node is back")
    assert f"lives at 127.0.0.1:{node.port}" in refused(live_again(live))
    assert node.process.running()
    for number in range(20):
        assert client(cluster).request("PUT", f"/secure/{number}", body=b"x" * 70_000).status == 200


def live_again(process: Process) -> Process:
    """The same start, with a log of its own."""
    return Process(
        process.tag, process.argv, process.log.with_suffix(".2.log"), process.environment
    )


def test_several_drives_in_one_node_and_one_of_them_lost(cluster: Cluster) -> None:
    tls = ("--tls-dir", str(certificates(cluster) / "node"))
    port = free_port()
    base = cluster.directory / "several"
    drives = [base / f"disk-{number}" for number in (1, 2, 3)]
    flags = [flag for drive in drives for flag in ("--drive", str(drive))]
    listen = ("--listen", f"127.0.0.1:{port}")
    command = ("--data", str(base / "data"), *flags, *listen, *tls)
    with started(node_process(cluster, "several", *command), port) as process:
        (line,) = [text for text in process.log.read_text().splitlines() if "node: " in text]
        names = line.split(" in ")[0].removeprefix("node: ").split(", ")
        assert len(set(names)) == 3
    drives[1].rename(base / "away")
    with started(node_process(cluster, "several-2", *command), port) as process:
        text = process.log.read_text()
        assert f"warning: {drives[1]} is absent, drive {names[1]} is expected there" in text
        assert f"node: {names[0]}, {names[2]} in" in text
    drives[1].mkdir()
    with started(node_process(cluster, "several-3", *command), port) as process:
        text = process.log.read_text()
        assert f"{drives[1]} is empty, drive {names[1]} was there" in text
        assert f"node: {names[0]}, " in text
        assert f"node: {', '.join(names)} in" not in text


def test_every_process_ran_without_a_traceback(cluster: Cluster) -> None:
    for process in cluster.processes:
        assert "Traceback" not in process.log.read_text(errors="replace"), process.log_tail()
