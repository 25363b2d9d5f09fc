"""The Docker files: nothing here runs a container engine, but every command line is run."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from s3gw.metrics import FAMILIES
from tests.compose.docker_host import command

DOCKER = Path(__file__).parents[2] / "compose" / "docker"
FILES = ("one-machine.yaml", "cluster.yaml")
KEYS = {
    "S3GW_ROOT_ACCESS_KEY": "COMPOSE",
    "S3GW_ROOT_SECRET_KEY": "compose-secret-of-a-test",
    "GRAFANA_ADMIN_PASSWORD": "compose-password-of-a-test",
}
# The part of the Compose Specification that the files use.
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "anyOf": [{"required": ["image"]}, {"required": ["build"]}],
    "properties": {
        "build": {
            "type": "object",
            "additionalProperties": False,
            "required": ["context", "dockerfile", "target"],
            "properties": {
                name: {"type": "string"} for name in ("context", "dockerfile", "target")
            },
        },
        "image": {"type": "string"},
        "user": {"type": "string"},
        "entrypoint": {"type": "array", "items": {"type": "string"}},
        "command": {"type": "array", "items": {"type": "string"}},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "items": {"pattern": r"^([\d.]+:)?\d+:\d+$"}},
        "volumes": {"type": "array", "items": {"pattern": r"^[\w./-]+:/[\w./-]+(:ro)?$"}},
        "depends_on": {"type": ["array", "object"]},
        "restart": {"enum": ["unless-stopped"]},
        "stop_grace_period": {"pattern": r"^\d+s$"},
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test"],
            "properties": {
                "test": {"type": "array"},
                **{n: {"pattern": r"^\d+s$"} for n in ("interval", "timeout", "start_period")},
            },
        },
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "services"],
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
}


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text())
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_as_the_specification_says(name: str) -> None:
    compose = document(name)
    jsonschema.validate(compose, SCHEMA)
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", (DOCKER / "Dockerfile").read_text(), re.M))
    for service in compose["services"].values():
        if "build" in service:
            assert service["build"]["target"] in stages
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (DOCKER / source).exists() if source.startswith(".") else True
            assert known, source
            assert source.startswith(".") or source in compose["volumes"], source
        waits_for = service.get("depends_on", [])
        assert set(waits_for) <= set(compose["services"])


def test_what_the_image_copies_is_there() -> None:
    repository = DOCKER.parents[1]
    ignored = (repository / ".dockerignore").read_text().split()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", (DOCKER / "Dockerfile").read_text(), re.M):
        for source in line.split():
            assert (repository / source).exists()
            assert f"!{source}" in ignored


def test_no_file_has_a_secret_of_its_own() -> None:
    for line in (DOCKER / "example.env").read_text().splitlines():
        assert line.startswith("#") or not line.partition("=")[2]


@pytest.mark.parametrize("name", FILES)
def test_every_command_runs_and_the_store_serves(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        shlex.split(command(DOCKER / name, tmp_path)),
        env={**os.environ, **KEYS},
        cwd=DOCKER.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    logs = "".join(f"{p.name}:\n{p.read_text()[-2000:]}" for p in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, done.stderr + logs
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["read"]
    assert not seen["ended_badly"]
    if name == "cluster.yaml":
        assert seen["read_without_gateway_1"]
        assert seen["targets"] == ["gateway-1:9001", "gateway-2:9001"]


def test_prometheus_takes_its_configuration_and_rules() -> None:
    for arguments in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run(
            ["promtool", *arguments],
            cwd=DOCKER / "prometheus",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    known = set(FAMILIES) | {f"{name}_bucket" for name in FAMILIES}
    for path in ("prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/s3gw.json"):
        named = set(re.findall(r"\bs3gw_\w+", (DOCKER / path).read_text()))
        assert named
        assert named <= known, path
