"""`s3gw admin` as a process against a real store, and its client against the admin port."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from compose.local import Up, answers, free_port, running, wait_until
from compose.s3_http import S3Http, Signer
from s3gw.admin.command import Usage, _node
from s3gw.admin.terminal import plain
from tests.admin.test_metrics import values
from tests.attacks.target import workers

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("admin") / "store", drives=8)
    with running(up):
        client = boto3.client(
            "s3",
            endpoint_url=up.endpoint,
            aws_access_key_id=up.credentials.access_key,
            aws_secret_access_key=up.credentials.secret_key,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="things")
        for number in range(5):
            client.put_object(Bucket="things", Key=f"{number}", Body=b"x" * 100_000 * number)
        upload = client.create_multipart_upload(Bucket="things", Key="open\x1b[2J")
        client.upload_part(
            Bucket="things",
            Key="open\x1b[2J",
            UploadId=upload["UploadId"],
            PartNumber=1,
            Body=b"y" * 1000,
        )
        yield up


def environment(store: Up, **changes: str) -> dict[str, str]:
    outside = {name: text for name, text in os.environ.items() if not name.startswith("S3GW_")}
    return {
        **outside,
        "S3GW_ADMIN": store.admin,
        "S3GW_ROOT_ACCESS_KEY": store.credentials.access_key,
        "S3GW_ROOT_SECRET_KEY": store.credentials.secret_key,
        **changes,
    }


def admin(store: Up, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "s3gw", "admin", *arguments],
        env=environment(store, **changes),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )


def shown(store: Up, *arguments: str) -> str:
    done = admin(store, *arguments)
    assert done.returncode == 0, (arguments, done.stderr)
    assert done.stderr == ""
    return done.stdout


def answer(store: Up, *arguments: str) -> Any:
    return json.loads(shown(store, *arguments, "--json"))


def node_of(store: Up) -> str:
    return str(answer(store, "nodes")["nodes"][0]["node"])


def test_every_question_is_answered_as_a_table_and_as_json(store: Up) -> None:
    node = node_of(store)
    expected = {
        "summary": "100 of 100",
        "nodes": node,
        f"node {node}": "active",
        "layout": "epoch 1",
        "rebalances": "nothing to move",
        "repairs": "nothing waits for repair",
        "ledger": "healed",
        "uploads": "open\\x1b[2J",
        "profiles": "4+2.small",
        "tunables": "rebuild_groups_at_once",
        f"may-stop {node}": "may be stopped",
        "scrub": "interval",
        "health": "100 of 100",
        "buckets": "things",
        "snapshots": "revision",
    }
    for command, text in expected.items():
        table = shown(store, *command.split())
        assert text in table, (command, table)
        assert "\x1b" not in table
        assert not any(line != line.rstrip() for line in table.splitlines())
        assert answer(store, *command.split())


def test_the_keys_that_up_keeps_are_found(store: Up, tmp_path: Path) -> None:
    keys = {
        "access_key": store.credentials.access_key,
        "secret_key": store.credentials.secret_key,
    }
    (tmp_path / "credentials.json").write_text(json.dumps(keys))
    none = {"S3GW_ROOT_ACCESS_KEY": "", "S3GW_ROOT_SECRET_KEY": ""}
    done = admin(store, "--data", str(tmp_path), "health", **none)
    assert done.returncode == 0
    done = admin(store, "--data", str(tmp_path / "elsewhere"), "health", **none)
    assert done.returncode == 2
    assert "S3GW_ROOT_ACCESS_KEY" in done.stderr


def test_a_refusal_is_one_line_and_exit_code_1(store: Up) -> None:
    for arguments, text in (
        (["node", "nobody"], "NoSuchNode"),
        (["run", "nobody"], "garbage"),
        (["layout", "plan"], "NoDraft"),
        (["tunables", "set", "rebuild_groups_at_once=0"], ">= 1"),
        (["tunables", "set", "surprise=1"], "surprise"),
        (["layout", "stage", "weight", "nobody", "1"], "nobody"),
        (["bucket-profile", "things", "none"], "none"),
        (["node", "../../health"], "no such path"),
    ):
        done = admin(store, *arguments)
        assert done.returncode == 1, (arguments, done)
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert text in done.stderr, done.stderr
    done = admin(store, "summary", S3GW_ROOT_SECRET_KEY="wrong-secret-key")
    assert (done.returncode, "SignatureDoesNotMatch" in done.stderr) == (1, True)


def test_wrong_usage_and_a_port_that_does_not_answer_are_exit_code_2(store: Up) -> None:
    for arguments in (
        ["surprise"],
        [],
        ["node"],
        ["layout", "stage", "surprise", "x"],
        ["tunables", "set"],
        ["tunables", "set", "x=y"],
        ["repairs", "--limit", "-1"],
        ["--endpoint", f"127.0.0.1:{free_port()}", "summary"],
        ["--endpoint", "http://", "summary"],
        ["--endpoint", store.endpoint, "summary"],  # the S3 port
    ):
        done = admin(store, *arguments)
        assert done.returncode == 2, (arguments, done)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert done.stderr


def test_changes_are_made_and_followed(store: Up) -> None:
    node = node_of(store)
    assert "cordoned" in shown(store, "node", node, "cordon")
    assert "active" in shown(store, "node", node, "uncordon")
    shown(store, "tunables", "set", "rebuild_groups_at_once=7", "rebuild_after_seconds=900.5")
    tunables = answer(store, "tunables")
    assert (tunables["rebuild_groups_at_once"], tunables["rebuild_after_seconds"]) == (7, 900.5)
    assert "staged" in shown(store, "layout", "stage", "weight", node, "3")
    assert "would move" in shown(store, "layout", "plan")
    shown(store, "layout", "discard")
    assert admin(store, "layout", "draft").returncode == 1
    assert "entries" in shown(store, "run", "garbage")
    shown(store, "profiles", "create", "copies", "1+2")
    assert "copies" in shown(store, "profiles")


def test_a_simulated_failure_lowers_the_score_and_ends(store: Up) -> None:
    node = node_of(store)
    shown(store, "node", node, "fail", "--seconds", "8")
    states = []

    def failing() -> bool:
        states.append(answer(store, "node", node)["failing"])
        return bool(states[-1])

    wait_until(failing, what="the node counts as down")
    wait_until(lambda: not failing(), what="the simulation is over")


def test_a_simulated_failure_is_ended_by_hand(store: Up) -> None:
    node = node_of(store)
    shown(store, "node", node, "fail", "--seconds", "3600")
    wait_until(lambda: bool(answer(store, "node", node)["failing"]), what="it counts as down")
    assert "does not count as down" in shown(store, "node", node, "unfail")
    wait_until(lambda: not answer(store, "node", node)["failing"], what="it is back")


def test_what_force_would_give_up_is_agreed_to_first(store: Up) -> None:
    node = node_of(store)
    shown(store, "layout", "stage", "remove", node)
    epoch = answer(store, "layout")["epoch"]
    try:
        done = admin(store, "layout", "apply", "--force")
        assert done.returncode == 2
        assert f"node {node} holds shards" in done.stderr
        assert "--yes" in done.stderr.splitlines()[-1]
        assert typed(store, "no\n", "layout", "apply", "--force") == 2
        assert answer(store, "layout")["epoch"] == epoch
    finally:
        shown(store, "layout", "discard")
    # Where nothing is given up nobody is asked.
    shown(store, "layout", "stage", "weight", node, str(answer(store, "node", node)["weight"]))
    assert "epoch" in shown(store, "layout", "apply", "--force")


def typed(store: Up, text: str, *arguments: str) -> int:
    """The exit code of a command that is answered at a terminal."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, text.encode())
        return subprocess.run(
            [sys.executable, "-m", "s3gw", "admin", *arguments],
            env=environment(store),
            cwd=REPOSITORY,
            stdin=theirs,
            capture_output=True,
            timeout=SECONDS_MAX,
        ).returncode
    finally:
        os.close(ours)
        os.close(theirs)


def test_curl_signs_for_the_admin_port(store: Up) -> None:
    def curl(service: str, nonce: str) -> str:
        done = subprocess.run(
            [
                *("curl", "-s", "-X", "POST", "-w", "%{http_code}", "-o", "/dev/null"),
                *("--aws-sigv4", f"aws:amz:us-east-1:{service}"),
                *("--user", f"{store.credentials.access_key}:{store.credentials.secret_key}"),
                *("-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "-H", f"x-s3gw-nonce: {nonce}"),
                f"{store.admin}/admin/nodes/{node_of(store)}/uncordon",
            ],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        return done.stdout

    assert curl("s3", "1") == "400"
    assert curl("s3gw", "2") == "200"
    assert curl("s3gw", "3") == "200"


def test_a_request_signed_for_the_admin_port_does_nothing_on_the_s3_port(store: Up) -> None:
    signer = Signer(store.credentials.access_key, store.credentials.secret_key)
    operator = dataclasses.replace(signer, service="s3gw")
    assert S3Http(store.endpoint, signer).request("GET", "/things").status == 200
    reply = S3Http(store.endpoint, operator).request("DELETE", "/things/0")
    assert (reply.status, b"AuthorizationHeaderMalformed" in reply.body) == (400, True)
    reply = S3Http(store.admin, signer).request("DELETE", "/admin/layout/draft")
    assert (reply.status, b"AuthorizationHeaderMalformed" in reply.body) == (400, True)


def test_a_drain_is_followed_to_its_end_with_a_bar(store: Up) -> None:
    node = node_of(store)
    done = admin(store, "node", node, "decommission", "--watch")
    assert done.returncode == 0, done.stderr
    assert "has left the layout" in done.stdout
    lines = done.stderr.splitlines()
    assert all("slots left" in line for line in lines)
    assert len(lines) == len(set(lines))
    assert "100%" in lines[-1]
    assert node not in [n["node"] for n in answer(store, "layout")["nodes"]]
    # Following reads; what is on record is the beginning and the end, however long it takes.
    asked = [line for line in store.process.log.read_text().splitlines() if "/decommission" in line]
    assert 2 <= len(asked) <= 3, asked


class Answering:
    """An admin client that answers from a list, and remembers what it was asked."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def call(self, method: str, path: str) -> dict[str, Any]:
        self.asked.append((method, path))
        return self.answers.pop(0)


def test_a_drain_that_somebody_takes_back_is_not_asked_for_again() -> None:
    began = {
        "node": "d0",
        "state": "draining",
        "epoch": 2,
        "slots": 9,
        "stranded": 0,
        "done": False,
    }
    client = Answering(began, {**began, "state": "active"})
    asked = argparse.Namespace(node="d0", change="drain", watch=True, json=False)
    with pytest.raises(Usage, match="d0 is active again: nothing leaves it"):
        _node(client, asked)  # type: ignore[arg-type]
    assert client.asked == [("POST", "/admin/nodes/d0/drain"), ("GET", "/admin/nodes/d0")]


def test_a_terminal_gets_one_line_that_is_drawn_again(store: Up) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "s3gw", "admin", "rebalances", "--watch"],
            env=environment(store),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=SECONDS_MAX,
        )
        drawn = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert drawn.startswith("\r[")
    assert "100%" in drawn


def test_a_reader_that_leaves_is_no_error(store: Up) -> None:
    command = f"{sys.executable} -m s3gw admin nodes --json | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment(store),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert done.stdout == "{"
    assert done.stderr == ""


def test_names_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[31mb\r\n\u202e") == "a\\x1b[31mb\\r\\n\\u202e"


def requests_counted(store: Up) -> float:
    """PutObject requests, as one scrape tells them."""
    with urllib.request.urlopen(store.admin + "/metrics", timeout=10) as reply:
        found = values(reply.read().decode())
    assert found["s3gw_processes{}"] >= 1
    return found.get("s3gw_requests_total{operation=PutObject,status=200}", 0.0)


def test_counters_are_those_of_all_processes_and_survive_a_killed_one(store: Up) -> None:
    before = requests_counted(store)
    s3 = boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.credentials.access_key,
        aws_secret_access_key=store.credentials.secret_key,
        region_name="us-east-1",
    )
    for number in range(30):
        s3.put_object(Bucket="things", Key=f"counted-{number}", Body=b"x")
    # Each scrape is a new connection, and so any process: all of them come to tell the same.
    seen: list[float] = []

    def all_told() -> bool:
        seen.append(requests_counted(store))
        return len(seen) >= 8 and set(seen[-8:]) == {before + 30}

    wait_until(all_told, what="every process shows the sum")
    victim = workers(store.process)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: victim not in workers(store.process) and answers(store.admin + "/health/ready"),
        what="another worker",
    )
    assert [requests_counted(store) for _ in range(8)] == [before + 30] * 8


def test_policies_are_asked(store: Up, tmp_path: Path) -> None:
    resource = "arn:aws:s3:::things/0"
    question = ["policy", "simulate", "--action", "s3:GetObject", "--resource", resource]
    denied = admin(store, *question, "--principal", "anonymous")
    assert (denied.returncode, denied.stderr) == (1, "")
    assert denied.stdout.startswith("implicitDeny: User: anonymous is not authorized")
    statement = {
        "Effect": "Allow",
        "Action": "s3:*",
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:UserAgent": "me"}},
    }
    document = tmp_path / "policy.json"
    document.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    asked = admin(store, *question, "--policy", str(document))
    assert asked.returncode == 1
    assert "not known: aws:useragent (--context)" in asked.stdout
    allowed = shown(store, *question, "--policy", str(document), "--context", "aws:UserAgent=me")
    assert "applies: Allow by statement 1 of policy 1 of the question" in allowed
    verdicts = json.loads(shown(store, *question, "--principal", "root", "--json"))["verdicts"]
    assert [verdict["decision"] for verdict in verdicts] == ["allowed"]
    for wrong in (["--context", "nothing"], ["--policy", str(tmp_path / "missing")]):
        assert admin(store, *question, *wrong).returncode == 2
