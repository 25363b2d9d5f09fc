"""Named keys, master keys and compression over the admin API and on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from s3gw.admin import encryption_views
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.key_records import ProcessKeys
from s3gw.metadata.records import encode
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
    masters = MasterKeys([b"n" * 32, MASTER_KEY])
    process.storage.ring = Ring(process.kv, Sources(master=masters), process.storage.clock_ms)
    assert (await admin.call("POST", "/admin/kms/rewrap"))["state"] == "walking"
    worker = Rewrapper(process.storage)
    while await worker.work():
        pass
    after = await admin.get("/admin/kms/master-keys")
    assert after["in_use"] == [after["present"]] != before["in_use"]
    assert after["configured"] == [masters.present.hex(), before["present"]]
    assert (after["rewrap"]["state"], after["rewrap"]["rewrapped"]) == ("done", 2)
    assert after["removable"] == [before["present"]]
    assert after["processes"] == []


async def test_the_old_master_key_may_go_when_every_process_has_the_new_one(admin: Admin) -> None:
    """Processes that were not started again are named, also after the job has ended."""
    path, process = "/admin/kms/master-keys", admin.process
    await encrypted.put(process, "k", b"body", S3)
    old, new = MasterKeys([MASTER_KEY]), MasterKeys([b"n" * 32, MASTER_KEY])
    process.storage.ring = Ring(process.kv, Sources(master=new), process.storage.clock_ms)

    async def runs(name: str, *ids: bytes) -> int:
        lease = await process.kv.grant_lease(10**6)
        record = encode(ProcessKeys(name, ids))
        await process.kv.commit([], [Put(keys.process(lease), record, lease)])
        return lease

    await runs("gateway-1 10", *new.ids)
    behind = await runs("gateway-2 20", old.present, new.present)
    await admin.call("POST", "/admin/kms/rewrap")
    worker = Rewrapper(process.storage)

    async def work() -> tuple[dict[str, Any], str]:
        while await worker.work():
            pass
        answer = await admin.get(path)
        return answer, encryption_views.ENCRYPTION_VIEWS["master-keys"](answer)

    answer, text = await work()
    assert [(each["name"], each["behind"]) for each in answer["processes"]] == [
        ("gateway-1 10", False),
        ("gateway-2 20", True),
    ]
    assert (answer["rewrap"]["state"], answer["removable"]) == ("walking", [])
    assert answer["rewrap"]["note"].endswith("gateway-2 20")
    assert "gateway-2 20" in text
    assert "gateway-1 10" not in text
    await process.kv.revoke_lease(behind)
    late = await runs("gateway-3 30", *new.ids)
    answer, text = await work()
    assert (answer["rewrap"]["state"], answer["removable"]) == ("done", [old.present.hex()])
    assert "to be started again" not in text
    await process.kv.revoke_lease(late)
    await runs("gateway-3 31", old.present)  # its configuration was forgotten
    answer, text = await work()
    assert answer["removable"] == []
    assert "gateway-3 31" in text


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
