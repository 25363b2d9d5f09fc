"""What is encrypted stays so, and can be read, whatever comes between a reading and its commit."""

from __future__ import annotations

import pytest

from s3gw import limits
from s3gw.metadata.records import ObjectRecord
from s3gw.objects import part_copy, publish
from s3gw.objects.encrypted import framing_of, framing_of_version
from s3gw.objects.keyring.ring import Wanted
from s3gw.objects.multipart import find_upload, list_parts
from tests.stores import encrypted
from tests.stores.encrypted import KMS, S3
from tests.stores.memory_store import BUCKET, Process

DATA = b"content " * 20_000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 0)


@pytest.mark.parametrize("wanted", [S3, KMS], ids=["S3", "KMS"])
async def test_no_part_of_an_encrypted_upload_shares_a_plain_blob(
    memory_store: Process, wanted: Wanted
) -> None:
    """The source was encrypted as the upload is, and is replaced by a plain one meanwhile."""
    storage = memory_store.storage
    await encrypted.put(memory_store, "source", DATA, wanted)
    upload_id = await encrypted.begin(memory_store, "copy", wanted)
    upload = await find_upload(storage, BUCKET, "copy", upload_id, 1)
    source = await publish.read_target(storage, BUCKET, "source")
    assert source.visible is not None
    held = part_copy.Keys(
        source.visible.content_id,
        await framing_of_version(storage, source.visible),
        await framing_of(storage, upload.record.description, upload_id),
    )
    await encrypted.put(memory_store, "source", DATA, None)

    def whole(record: ObjectRecord) -> tuple[int, int]:
        return 0, record.size

    assert await part_copy.share_part(storage, upload, 1, source, whole, held) is None
    assert (await list_parts(storage, upload_id))[0].records == []
