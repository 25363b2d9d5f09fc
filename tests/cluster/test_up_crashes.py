"""`s3gw up` killed at random moments under load: the whole group, or one of its workers."""

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from compose.local import Up, answers, running, wait_until
from tests.attacks.target import SOAK, workers
from tests.cluster.load import Load, client

SEED = int(os.environ.get("CRASH_SEED", "20260102"))
ROUNDS = 40 if SOAK else 2
BUCKET = "crashes"
TOLERANCE = 2

Kill = Callable[[Up, random.Random], None]


def kill_group(up: Up, chance: random.Random) -> None:
    up.process.kill()
    up.start()


def kill_worker(up: Up, chance: random.Random) -> None:
    victim = chance.choice(workers(up.process))
    os.kill(victim, signal.SIGKILL)

    def replaced() -> bool:
        return victim not in workers(up.process) and answers(up.admin + "/health/ready")

    wait_until(replaced, what="another worker")


def kill_supervisor(up: Up, chance: random.Random) -> None:
    """Its workers must end by themselves, or the next start would find the drives in use."""
    orphans = workers(up.process)
    os.kill(up.process.pid, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in orphans), what="ended")
    wait_until(lambda: not up.process.running(), what="the supervisor ended")
    up.start()


@pytest.mark.parametrize("kill", [kill_group, kill_worker, kill_supervisor])
def test_what_was_acknowledged_survives(kill: Kill, tmp_path: Path) -> None:
    chance = random.Random(f"{SEED}/{kill.__name__}")
    up = Up(tmp_path / "store")
    with running(up):
        s3 = client(up.endpoint, up.credentials, attempts=5)
        s3.create_bucket(Bucket=BUCKET)
        load = Load(up.endpoints, up.credentials, BUCKET, SEED).start()
        moment = threading.Event()
        try:
            for _ in range(ROUNDS):
                load.progress(writes=5)
                moment.wait(chance.uniform(0, 0.5))
                kill(up, chance)
        finally:
            load.stop()
        load.verify(s3)
        assert up.stop() == 0
        up.start()
        load.verify(s3)


def test_conditional_creates_have_one_winner_across_a_kill(tmp_path: Path) -> None:
    """Writers race for each key while the group is killed; each won key holds its winner's body."""
    up = Up(tmp_path / "store")
    writers, keys = 8, [f"once-{number}" for number in range(30)]
    won: dict[str, list[int]] = {key: [] for key in keys}
    with running(up):
        s3 = client(up.endpoint, up.credentials, attempts=5)
        s3.create_bucket(Bucket=BUCKET)
        barrier = threading.Barrier(writers + 1)

        def race(number: int) -> None:
            own = client(up.endpoint, up.credentials)
            barrier.wait()
            for key in keys:
                if create_once(own, key, number):
                    won[key].append(number)

        with ThreadPoolExecutor(writers) as pool:
            races = [pool.submit(race, number) for number in range(writers)]
            barrier.wait()
            threading.Event().wait(0.15)
            kill_group(up, random.Random(SEED))
            for each in races:
                each.result()
        listed = {each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}
        for key, winners in won.items():
            assert len(winners) <= 1, f"{key} was won by {winners}"
            if winners:
                body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                assert (key in listed, body) == (True, b"%d" % winners[0])
        assert any(won.values())


def create_once(s3: Any, key: str, number: int) -> bool:
    """Whether this writer was told that it created the key."""
    try:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"%d" % number, IfNoneMatch="*")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412, 503):
            raise
        return False
    except BotoCoreError:
        return False  # The connection broke: the outcome is unknown.
    return True


def test_metadata_and_as_many_drives_as_parity_may_be_lost(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    up = Up(tmp_path / "store")
    with running(up):
        s3 = client(up.endpoint, up.credentials, attempts=5)
        s3.create_bucket(Bucket=BUCKET)
        load = Load(up.endpoints, up.credentials, BUCKET, SEED).start()
        load.progress(writes=20)
        load.stop()
        up.process.kill()
        shutil.rmtree(up.directory / "metadata")
        for number in chance.sample(range(1, 7), TOLERANCE):
            shutil.rmtree(up.directory / f"drive-{number}")
        up.start()
        load.verify(s3)
        s3.put_object(Bucket=BUCKET, Key="client-later", Body=b"works")
        assert s3.get_object(Bucket=BUCKET, Key="client-later")["Body"].read() == b"works"


def test_ctrl_c_stops_cleanly_and_the_next_start_finds_everything(tmp_path: Path) -> None:
    up = Up(tmp_path / "store")
    with running(up):
        s3 = client(up.endpoint, up.credentials, attempts=5)
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"kept")
        # As a terminal does: to every process of the group at once.
        os.killpg(up.process.pid, signal.SIGINT)
        assert up.process.wait() == 0
        assert "Traceback" not in up.process.log.read_text()
        up.start()
        assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"kept"
