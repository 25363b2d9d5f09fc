"""Every route of S3 with temporary credentials that are over, damaged, incomplete or gone."""

import pytest

from s3gw.server.routes import ROWS, Asks, Row, Scope
from tests.iam.conftest import Keys
from tests.iam.in_process import Port
from tests.stores.memory_store import BUCKET, Process

SIGNED = [row for row in ROWS if row.asks is not Asks.NOBODY]
PATHS = {Scope.SERVICE: "/", Scope.BUCKET: f"/{BUCKET}", Scope.OBJECT: f"/{BUCKET}/key"}
BODY = b"<Anything/>"


def target(row: Row) -> str:
    if row.name == "WriteGetObjectResponse":
        return "/WriteGetObjectResponse"
    query = "&".join(f"{key}={'1' if value is None else value}" for key, value in row.required)
    return PATHS[row.scope] + (f"?{query}" if query else "")


async def ask(port: Port, row: Row, keys: Keys) -> tuple[int, str]:
    headers = dict.fromkeys(row.headers, "bucket/other")
    if row.headers == ("content-type",):
        headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await port.send(row.method, target(row), BODY, keys, headers=headers)
    return answer.status, "" if row.method == "HEAD" else answer.text("Code")


@pytest.fixture
async def port(memory_store: Process) -> Port:
    return await Port.open(memory_store)


@pytest.mark.parametrize("row", SIGNED, ids=lambda row: row.name)
async def test_credentials_that_are_none_are_refused(port: Port, row: Row) -> None:
    allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    keys = await port.user("ada", allowed)
    good = (await port.ask("GetSessionToken", keys)).keys
    assert good.token is not None
    damaged = good.token[:40] + ("A" if good.token[40] != "A" else "B") + good.token[41:]
    for session, code, status in (
        (Keys(good.access_key, good.secret_key, damaged), "InvalidToken", 400),
        (Keys(good.access_key, good.secret_key), "InvalidAccessKeyId", 403),
        (Keys(keys.access_key, keys.secret_key, good.token), "InvalidToken", 400),
        (Keys(good.access_key, "another", good.token), "SignatureDoesNotMatch", 403),
    ):
        found = await ask(port, row, session)
        assert found in ((status, code), (status, "")), found
    port.ahead = 13 * 3600
    assert await ask(port, row, good) in ((400, "ExpiredToken"), (400, ""))
    port.ahead = 0
    await port.store.delete_access_key(keys.access_key)
    assert await ask(port, row, good) in ((400, "InvalidToken"), (400, ""))
