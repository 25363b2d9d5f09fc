"""Named keys in a transit engine, and SSE-S3 under one."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from s3gw import errors
from s3gw.objects.content.framing import ContentDamaged
from s3gw.objects.keyring.ring import Ring, Sources
from s3gw.objects.keyring.transit import Transit
from s3gw.workers import rewrap
from s3gw.workers.rewrap import RECORDS_AT_ONCE, Rewrapper
from tests.keyring.fake_vault import TOKEN, FakeVault
from tests.stores import encrypted, operations
from tests.stores.encrypted import KMS, S3
from tests.stores.memory_store import Process

BODY = bytes(range(256)) * 300


@pytest.fixture
def vault() -> FakeVault:
    made = FakeVault()
    made.make("default")
    return made


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture
def process(memory_store: Process, vault: FakeVault, token_file: Path) -> Process:
    transit = Transit("https://vault.test:8200/", token_file, client=vault.client())
    sources = Sources(transit=transit, transit_key="default")
    memory_store.storage.ring = Ring(memory_store.kv, sources, memory_store.storage.clock_ms)
    return memory_store


@pytest.mark.parametrize("wanted", [S3, KMS], ids=["S3", "KMS"])
async def test_objects_are_opened_with_the_key_there(
    process: Process, vault: FakeVault, wanted
) -> None:
    record = await encrypted.put(process, "k", BODY, wanted)
    assert record.description.encryption is not None
    assert b"vault:v1:" in record.description.encryption.wrapped_key
    assert await encrypted.get(process, "k", wanted=wanted) == BODY
    assert {str(r.url.copy_with(path="/")) for r in vault.requests} == {"https://vault.test:8200/"}


async def test_a_rotation_there_is_followed_by_wrapping_anew(
    process: Process, vault: FakeVault
) -> None:
    await encrypted.put(process, "k", BODY, KMS)
    await encrypted.put(process, "s", BODY, S3)
    vault.rotate("default")
    assert await encrypted.get(process, "k", wanted=KMS) == BODY
    await rewrap.start(process.storage)
    worker = Rewrapper(process.storage)
    while await worker.work():
        pass
    for key, wanted in (("k", KMS), ("s", S3)):
        record = await operations.record(process, key)
        assert record is not None
        assert record.description.encryption is not None
        assert b"vault:v2:" in record.description.encryption.wrapped_key
        assert await encrypted.get(process, key, wanted=wanted) == BODY


async def test_records_wait_for_the_service_together(
    memory_store: Process, vault: FakeVault, token_file: Path
) -> None:
    waiting = most = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        for _ in range(200 if request.url.path.endswith("/rewrap/default") else 0):
            if most > 1:
                break
            await asyncio.sleep(0.001)
        waiting -= 1
        return vault.answer(request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    sources = Sources(transit=Transit("https://vault.test:8200/", token_file, client=client))
    memory_store.storage.ring = Ring(memory_store.kv, sources, memory_store.storage.clock_ms)
    for number in range(2 * RECORDS_AT_ONCE):
        await encrypted.put(memory_store, f"k{number}", b"k", KMS)
    assert most == 1
    vault.rotate("default")
    job = await rewrap.start(memory_store.storage)
    worker = Rewrapper(memory_store.storage)
    while await worker.work():
        pass
    found = (await rewrap.status(memory_store.storage)).record
    assert found is not None
    assert (found.started_ms, found.state, found.failed) == (job.started_ms, rewrap.DONE, 0)
    assert found.rewrapped == 2 * RECORDS_AT_ONCE
    assert 1 < most <= RECORDS_AT_ONCE


async def test_a_wrapped_key_of_another_object_does_not_open(process: Process) -> None:
    import msgspec

    one = await encrypted.put(process, "one", BODY, KMS)
    two = await encrypted.put(process, "two", BODY, KMS)
    forged = msgspec.structs.replace(two, description=one.description)
    await encrypted.overwrite(process, "two", forged)
    with pytest.raises(ContentDamaged):
        await encrypted.get(process, "two", wanted=KMS)


async def test_a_key_that_is_not_there(process: Process, vault: FakeVault) -> None:
    await encrypted.put(process, "k", BODY, KMS)
    vault.keys.clear()
    with pytest.raises(errors.KMSNotFoundException):
        await encrypted.put(process, "n", BODY, KMS)
    with pytest.raises(errors.KMSNotFoundException):
        await encrypted.get(process, "k", wanted=KMS)


async def test_trouble_there_is_worth_a_retry(
    process: Process, vault: FakeVault, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await encrypted.put(process, "k", BODY, KMS)
    caplog.set_level(logging.DEBUG)
    vault.broken = True
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.get(process, "k", wanted=KMS)
    vault.broken = False
    token_file.write_text("expired")
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.put(process, "n", BODY, KMS)
    token_file.write_text(TOKEN)
    assert await encrypted.get(process, "k", wanted=KMS) == BODY
    token_file.unlink()
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.get(process, "k", wanted=KMS)
    assert "Vault is sealed" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("text", [f"{TOKEN}\nanother", f"{TOKEN} another", f"{TOKEN}\x00", ""])
async def test_a_token_file_that_holds_something_else_is_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token").write_text(text)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transit = Transit(f"http://127.0.0.1:{port}", tmp_path / "token")
    with pytest.raises(errors.ServiceUnavailable):
        await transit.wrap("default", b"k" * 32, b"")
    await transit.close()
    server.close()
    assert "holds no token" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"<html>a proxy"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"data": {}}),
        httpx.Response(200, json={"data": {"ciphertext": "other:v1:AA=="}}),
        httpx.Response(302, headers={"location": "https://elsewhere.test/"}),
    ],
)
async def test_answers_that_the_interface_does_not_have(
    process: Process, token_file: Path, answer: httpx.Response
) -> None:
    transport = httpx.MockTransport(lambda request: answer)
    client = httpx.AsyncClient(transport=transport)
    transit = Transit("https://vault.test", token_file, client=client)
    with pytest.raises(errors.ServiceUnavailable):
        await transit.wrap("default", b"k" * 32, b"context")


async def test_a_name_is_one_segment_of_the_path(vault: FakeVault, token_file: Path) -> None:
    transit = Transit("https://vault.test", token_file, client=vault.client())
    with pytest.raises(errors.KMSNotFoundException):
        await transit.wrap("../sys/seal", b"k" * 32, b"context")
    assert vault.requests[-1].url.raw_path == b"/v1/transit/encrypt/..%2Fsys%2Fseal"
