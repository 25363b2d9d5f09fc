"""Stores as processes: they start, stop cleanly, and find their data when started again."""

import json
import stat

import pytest

from compose.cluster import describe, master_key_settings, stored_credentials
from compose.local import Cluster, Process, StartError, Up, free_port, running
from compose.s3_http import S3Http, Signer
from s3gw.objects.keyring.master import read_file

ONE_WORKER = {"S3GW_PROCESSES": "1"}
BODY = b"kept over a restart" * 10_000


def client(store) -> S3Http:
    credentials = store.credentials
    return S3Http(store.endpoint, Signer(credentials.access_key, credentials.secret_key))


def test_up_finds_its_data_again(tmp_path):
    first = Up(tmp_path / "store")
    with running(first):
        assert client(first).request("PUT", "/kept").status == 200
        assert client(first).request("PUT", "/kept/k", body=BODY).status == 200
    second = Up(tmp_path / "store", credentials=first.credentials)
    with running(second):
        assert client(second).request("GET", "/kept/k").body == BODY


def test_a_cluster_finds_its_data_again(tmp_path):
    first = Cluster(tmp_path / "store", nodes=6, gateways=1, environment=ONE_WORKER)
    sealed = {"x-amz-server-side-encryption": "AES256"}
    with running(first):
        assert client(first).request("PUT", "/kept").status == 200
        assert client(first).request("PUT", "/kept/k", body=BODY).status == 200
        put = client(first).request("PUT", "/kept/sealed", body=BODY, headers=sealed)
        assert put.status == 200
    assert not any(process.running() for process in first.processes)
    assert not any(process.said("is killed") for process in first.processes)
    second = Cluster(
        tmp_path / "store",
        nodes=6,
        gateways=1,
        environment=ONE_WORKER,
        credentials=first.credentials,
    )
    with running(second):
        assert client(second).request("GET", "/kept/k").body == BODY
        assert client(second).request("GET", "/kept/sealed").body == BODY


def test_a_cluster_makes_its_master_key_once_unless_it_is_given_one(tmp_path):
    first = Cluster(tmp_path / "store", nodes=1, gateways=1)
    kept = first.master_key.read_bytes()
    assert stat.S_IMODE(first.master_key.stat().st_mode) == 0o600
    assert len(read_file(first.master_key).ids) == 1
    named = [gateway.process.environment["S3GW_MASTER_KEY_FILE"] for gateway in first.gateways]
    assert named == [str(first.master_key)]
    assert not any("MASTER" in name for node in first.nodes for name in node.process.environment)
    second = Cluster(tmp_path / "store", nodes=1, gateways=1)
    assert second.master_key.read_bytes() == kept
    assert str(second.master_key) in describe(second)
    assert kept.decode().strip() not in describe(second)
    given = master_key_settings({"S3GW_MASTER_KEY": "k", "S3GW_ZONE": "z"})
    assert given == {"S3GW_MASTER_KEY": "k"}
    third = Cluster(tmp_path / "other", nodes=1, gateways=1, environment=given)
    assert third.master_key is None
    assert not (tmp_path / "other" / "master.key").exists()
    assert "environment" in describe(third)


def test_a_process_that_ends_at_once_is_reported_with_its_own_words(tmp_path):
    process = Process("echo", ["sh", "-c", "echo no such drive; exit 3"], tmp_path / "log")
    process.start()
    with pytest.raises(StartError, match="no such drive"):
        process.wait_ready(lambda: False)


def test_a_process_gets_no_setting_of_the_store_from_our_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("S3GW_DATA", "elsewhere")
    process = Process("env", ["env"], tmp_path / "log", {"S3GW_ZONE": "given"})
    process.start()
    assert process.wait() == 0
    assert "S3GW_ZONE=given" in process.log_tail()
    assert "S3GW_DATA" not in process.log_tail()


def test_a_port_is_given_out_once():
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)
    assert all(10_000 <= port <= 32_000 for port in ports)


def test_credentials_of_a_cluster_are_private_and_made_once(tmp_path):
    path = tmp_path / "cluster" / "credentials.json"
    made = stored_credentials(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stored_credentials(path) == made
    assert json.loads(path.read_text())["access_key"] == made.access_key
