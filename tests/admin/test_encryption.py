"""Named keys, master keys and compression over the admin API and on the command line."""

from __future__ import annotations

import json

import pytest

from s3gw.admin import encryption_views
from s3gw.objects.keyring.master import MasterKeys
from s3gw.objects.keyring.ring import Ring, Sources
from s3gw.workers.rewrap import Rewrapper
from tests.admin.conftest import Admin
from tests.stores import encrypted
from tests.stores.encrypted import KMS, S3
from tests.stores.memory_store import MASTER_KEY

KEYS = "/admin/kms/keys"
DAY = 86_400


async def status(admin: Admin, method: str, target: str, body: object = None) -> tuple[int, str]:
    sent = b"" if body is None else json.dumps(body).encode()
    reply = await admin.send(method, target, sent)
    return reply.status_code, reply.json().get("message", "")


async def test_a_named_key_through_its_life(admin: Admin) -> None:
    assert await admin.get(KEYS) == {"keys": []}
    made = await admin.call("POST", KEYS, {"name": "invoices", "description": "of 2026"})
    assert (made["state"], made["versions"], made["description"]) == ("enabled", 1, "of 2026")
    assert made["arn"] == "arn:aws:kms:us-east-1:000000000000:key/invoices"
    assert (await status(admin, "POST", KEYS, {"name": "invoices"}))[0] == 409
    assert (await admin.call("POST", f"{KEYS}/invoices/rotate"))["versions"] == 2
    assert (await admin.call("POST", f"{KEYS}/invoices/disable"))["state"] == "disabled"
    pending = await admin.call("POST", f"{KEYS}/invoices/delete", {"days": 7})
    assert pending["delete_after_ms"] == admin.cluster.clock.ms() + 7 * DAY * 1000
    assert (await status(admin, "POST", f"{KEYS}/invoices/rotate"))[0] == 400
    admin.cluster.clock.advance(7 * DAY - 1)
    assert (await admin.get(f"{KEYS}/invoices"))["state"] == "pending"
    admin.cluster.clock.advance(2)
    assert (await status(admin, "GET", f"{KEYS}/invoices"))[0] == 404
    assert await admin.get(KEYS) == {"keys": []}


async def test_no_answer_has_a_key_in_it(admin: Admin) -> None:
    await admin.call("POST", KEYS, {"name": "invoices"})
    for path in (KEYS, f"{KEYS}/invoices", "/admin/kms/master-keys"):
        text = (await admin.send("GET", path)).text
        assert "mmmm" not in text
        assert MASTER_KEY.hex() not in text


async def test_wrapping_anew_is_begun_and_followed(admin: Admin) -> None:
    process = admin.process
    await encrypted.put(process, "k", b"body", S3)
    await encrypted.put(process, "n", b"body", KMS)
    before = await admin.get("/admin/kms/master-keys")
    assert before["in_use"] == [before["present"]]
    assert before["rewrap"] is None
    keys = MasterKeys([b"n" * 32, MASTER_KEY])
    process.storage.ring = Ring(process.kv, Sources(master=keys), process.storage.clock_ms)
    assert (await admin.call("POST", "/admin/kms/rewrap"))["state"] == "walking"
    worker = Rewrapper(process.storage)
    while await worker.work():
        pass
    after = await admin.get("/admin/kms/master-keys")
    assert after["in_use"] == [after["present"]] != before["in_use"]
    assert after["configured"] == [keys.present.hex(), before["present"]]
    assert (after["rewrap"]["state"], after["rewrap"]["rewrapped"]) == ("done", 2)


async def test_without_a_master_key_there_are_no_named_keys(admin: Admin) -> None:
    process = admin.process
    process.storage.ring = Ring(process.kv, Sources(), process.storage.clock_ms)
    for path, body in ((KEYS, {"name": "k"}), ("/admin/kms/rewrap", None)):
        code, message = await status(admin, "POST", path, body)
        assert (code, "no master key" in message) == (409, True)


@pytest.mark.parametrize("kind", ["zstd", ""])
async def test_compression_is_set_and_shown(admin: Admin, kind: str) -> None:
    path = "/admin/buckets/bucket/compression"
    await admin.call("PUT", path, {"compression": kind})
    assert await admin.get(path) == {"bucket": "bucket", "compression": kind}
    record = await encrypted.put(admin.process, "k", b"x" * 100_000, None)
    assert record.description.compression == kind


async def test_answers_as_text(admin: Admin) -> None:
    views = encryption_views.ENCRYPTION_VIEWS
    assert "no named keys" in views["kms-keys"](await admin.get(KEYS))
    made = await admin.call("POST", KEYS, {"name": "invoices", "description": "a\x1b[2Jb"})
    shown = views["kms-keys"](await admin.get(KEYS)) + views["kms-key"](made)
    assert "invoices" in shown
    assert "\x1b" not in shown
    started = await admin.call("POST", "/admin/kms/rewrap")
    assert "walking" in views["rewrap"](started)
    masters = await admin.get("/admin/kms/master-keys")
    assert masters["present"] in views["master-keys"](masters)
    answer = {"bucket": "logs", "compression": "zstd"}
    assert views["compression"](answer) == "new objects of logs are compressed: zstd"
