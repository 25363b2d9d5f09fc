"""Random operations on a store, against a model of what it must hold, with crashes in between.

A `Scenario` is one seed: S3 operations interleaved with the workers, nodes that fail and return,
bits that flip, and processes that die at any commit, before or after it took effect. What is
checked: `Audit`, after every step, and what every key reads as.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from nodes.memory import Fault
from nodes.protocol import DriveUnreachable, ShardName
from s3gw.errors import SlowDown
from s3gw.metadata import keys
from s3gw.metadata.records import PartRecord, UploadRecord, decode
from s3gw.metadata.store import OutcomeUnknown
from s3gw.workers import on_demand
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

KEYS = ("a", "b", "c", "d")
SIZES = (0, 1, 700, 5_000, 66_000, 200_000)
DOWN_MAX = 2
DAY_SECONDS = 24 * 3600.0


@dataclass
class OpenUpload:
    """An upload as the model knows it. `taken`: a Complete died in it; no part is accepted."""

    key: str
    parts: dict[int, bytes] = field(default_factory=dict)
    taken: bool = False


class Scenario:
    """One seed. `versioned`: the bucket keeps what is replaced and deleted, until `_forget`."""

    def __init__(
        self, seed: int, *, crash_share: float, versioned: bool = False, trash: bool = False
    ) -> None:
        self.random = random.Random(seed)
        self.versioned = versioned
        self.trash = trash
        self.crash_share = crash_share
        self.cluster = MemoryCluster(self.random.choice((7, 8, 9)))
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[bytes, OpenUpload] = {}
        self.down: set[str] = set()
        self.crashes = 0
        self.log: list[str] = []
        self.process: Process
        self.fuse: Fuse

    async def run(self, steps: int) -> None:
        await self.cluster.found()
        await self._start()
        if self.versioned:
            await operations.set_versioning(self.process, "Enabled")
        if self.trash:
            await operations.set_trash(self.process, DAY_SECONDS)
        actions = self._actions()
        for _ in range(steps):
            (action,) = self.random.choices(
                [action for action, _ in actions], [weight for _, weight in actions]
            )
            await action()
            audit = Audit(self.cluster, self.process)
            audit.check_held()
            audit.check_counts()
            audit.check_usage()
            audit.check_versions()
            audit.check_fences()
            audit.check_trash()
        await self._rest()

    def _actions(self) -> list[tuple[Callable[[], Awaitable[None]], int]]:
        return [
            (self._put, 10),
            (self._delete, 6),
            (self._forget, 6 if self.versioned else 0),
            (self._copy, 5),
            (self._rename, 5),
            (self._copy_part, 4),
            (self._restore, 4 if self.trash else 0),
            (self._empty_trash, 2 if self.trash else 0),
            (self._purge, 3 if self.trash else 0),
            (self._create_upload, 3),
            (self._upload_part, 8),
            (self._complete, 4),
            (self._abort, 2),
            (self._pass_time, 6),
            (self._collect, 6),
            (self._merge, 2),
            (self._repair, 3),
            (self._scrub, 2),
            (self._end_stale_uploads, 2),
            (self._fail_node, 3),
            (self._heal, 3),
            (self._rot, 1),
            (self._stumble, 4),
        ]

    async def _start(self) -> None:
        self.fuse = Fuse()
        seed = self.random.getrandbits(32)
        self.process = await self.cluster.process(
            CrashingKV(self.cluster.kv(), self.fuse), seed=seed
        )

    async def _attempt(self, name: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Do something, maybe with a crash in it; whether it is known to have been done."""
        if self.random.random() < self.crash_share:
            commits = min(int(self.random.expovariate(0.6)), 12)
            self.fuse.arm(commits, self.random.choice(list(Mode)))
        self.log.append(name)
        try:
            await work()
            if self.fuse.blown:
                raise Crashed  # a worker leaves an entry behind, whatever it raised
        except (Crashed, OutcomeUnknown) as error:
            self.log[-1] += f" ({type(error).__name__}, {self.fuse.mode.value})"
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)
            self.crashes += 1
            if self.fuse.blown:
                await self._start()
            return False
        except SlowDown as error:
            self.log[-1] += f" ({error})"  # 503: too many nodes fail at once
            return False
        finally:
            self.fuse.arm(-1, Mode.DIE_BEFORE)
        return True

    # S3 operations

    def _data(self) -> bytes:
        size = self.random.choices(SIZES, (1, 1, 6, 6, 2, 1))[0]
        return self.random.randbytes(size)

    async def _settle_key(self, key: str, *allowed: bytes | None) -> None:
        """The key holds one of the contents allowed; from now on that one."""
        found = await operations.record(self.process, key)
        content = None if found is None else await operations.get(self.process, key)
        assert content in allowed, f"{key} has a content that nobody wrote"
        if content is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = content

    async def _put(self) -> None:
        key, data = self.random.choice(KEYS), self._data()
        done = await self._attempt(
            f"put {key} {len(data)}", lambda: operations.put(self.process, key, data)
        )
        await self._settle_key(key, data, *(() if done else (self.objects.get(key),)))

    async def _delete(self) -> None:
        key = self.random.choice(KEYS)
        done = await self._attempt(f"delete {key}", lambda: operations.delete(self.process, key))
        await self._settle_key(key, None, *(() if done else (self.objects.get(key),)))

    async def _forget(self) -> None:
        """Remove a version that is not the newest of its key."""
        versions = Audit(self.cluster, self.process).versions()
        newest = {key: 0 for _, key, _ in versions}
        for _, key, record in versions:
            newest[key] = max(newest[key], record.sequence)
        older = sorted((k, r.sequence) for _, k, r in versions if r.sequence < newest[k])
        if older:
            key, sequence = self.random.choice(older)
            await self._attempt(
                f"forget {key} {sequence}",
                lambda: operations.remove(self.process, key, sequence),
            )
            await self._settle_key(key, self.objects.get(key))

    async def _copy(self) -> None:
        if not self.objects:
            return
        source, key = self.random.choice(sorted(self.objects)), self.random.choice(KEYS)
        done = await self._attempt(
            f"copy {source} {key}", lambda: operations.copy(self.process, source, key)
        )
        data = self.objects[source]
        await self._settle_key(key, data, *(() if done else (self.objects.get(key),)))

    async def _rename(self) -> None:
        if not self.objects:
            return
        source, key = self.random.choice(sorted(self.objects)), self.random.choice(KEYS)
        if source == key:
            return
        before, data = self.objects.get(key), self.objects[source]
        done = await self._attempt(
            f"rename {source} {key}", lambda: operations.rename(self.process, source, key)
        )
        there = await operations.record(self.process, source) is not None
        assert not (done and there)
        await self._settle_key(source, data if there else None)
        await self._settle_key(key, before if there else data)

    async def _copy_part(self) -> None:
        """A part that shares the blob of an object, where that is possible."""
        upload_id = self._choose_upload(accepting=True)
        if upload_id is None or not self.objects:
            return
        upload, number = self.uploads[upload_id], self.random.randrange(1, 5)
        source = self.random.choice(sorted(self.objects))
        await self._attempt(
            f"copy part {upload.key} {number} of {source}",
            lambda: operations.copy_part(self.process, source, upload.key, upload_id, number),
        )
        item = self.cluster.engine.items.get(keys.part(upload_id, number))
        etag = decode(PartRecord, item.value).etag if item else None
        if etag == hashlib.md5(self.objects[source]).hexdigest():
            upload.parts[number] = self.objects[source]

    async def _restore(self) -> None:
        """Bring something back from the trash, over what is there."""
        entries = Audit(self.cluster, self.process).trash()
        if not entries:
            return
        record_key, entry = self.random.choice(sorted(entries))
        key, sequence = keys.split_trashed(record_key)[1], entry.record.sequence
        done = await self._attempt(
            f"restore {key} {sequence}",
            lambda: operations.untrash(self.process, key, sequence),
        )
        found = await operations.record(self.process, key)
        restored = found is not None and found.content_id == entry.record.content_id
        assert restored or not done
        if restored:
            self.objects[key] = await operations.get(self.process, key)
        else:
            await self._settle_key(key, self.objects.get(key))

    async def _empty_trash(self) -> None:
        prefix = self.random.choice(KEYS)
        await self._attempt(
            f"empty the trash of {prefix}", lambda: operations.empty_trash(self.process, prefix)
        )

    async def _purge(self) -> None:
        await self._work("purge", lambda: on_demand.purge_trash(self.process.storage))

    async def _create_upload(self) -> None:
        key = self.random.choice(KEYS)
        await self._attempt(f"create {key}", lambda: operations.start(self.process, key))
        for record_key in Audit(self.cluster, self.process).under(keys.uploads(BUCKET)):
            found, upload_id = keys.unended(record_key[len(keys.uploads(BUCKET)) :])
            self.uploads.setdefault(upload_id, OpenUpload(found))

    def _choose_upload(self, *, accepting: bool) -> bytes | None:
        ids = [i for i in sorted(self.uploads) if not (accepting and self.uploads[i].taken)]
        return self.random.choice(ids) if ids else None

    async def _upload_part(self) -> None:
        upload_id = self._choose_upload(accepting=True)
        if upload_id is None:
            return
        upload, number, data = self.uploads[upload_id], self.random.randrange(1, 5), self._data()
        await self._attempt(
            f"part {upload.key} {number}",
            lambda: operations.part(self.process, upload.key, upload_id, number, data),
        )
        item = self.cluster.engine.items.get(keys.part(upload_id, number))
        etag = decode(PartRecord, item.value).etag if item else None
        if etag == hashlib.md5(data).hexdigest():
            upload.parts[number] = data
        else:
            before = upload.parts.get(number)
            assert etag == (None if before is None else hashlib.md5(before).hexdigest())

    async def _complete(self) -> None:
        upload_id = self._choose_upload(accepting=False)
        if upload_id is None or not self.uploads[upload_id].parts:
            return
        upload = self.uploads[upload_id]
        numbers = sorted(upload.parts)
        left_out = tuple(n for n in numbers[1:] if self.random.random() < 0.3)
        await self._attempt(
            f"complete {upload.key} without {left_out}",
            lambda: operations.complete(self.process, upload.key, upload_id, leave_out=left_out),
        )
        record_key = keys.upload(BUCKET, upload.key, upload_id)
        item = self.cluster.engine.items.get(record_key)
        if item is not None:
            upload.taken = decode(UploadRecord, item.value).state != "open"
            return
        del self.uploads[upload_id]
        content = b"".join(upload.parts[n] for n in numbers if n not in left_out)
        await self._settle_key(upload.key, content)

    async def _abort(self) -> None:
        upload_id = self._choose_upload(accepting=False)
        if upload_id is None:
            return
        key = self.uploads[upload_id].key
        await self._attempt(f"abort {key}", lambda: operations.abort(self.process, key, upload_id))
        if keys.upload(BUCKET, key, upload_id) not in self.cluster.engine.items:
            del self.uploads[upload_id]

    # Workers

    async def _work(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """A worker's run: no shard of what is held may go."""
        before = self._held_shards()
        await self._attempt(name, work)
        still = Audit(self.cluster, self.process)
        held = {ref.blob for ref in still.held().values()}
        gone = {shard for shard in before - self._shards() if shard[1].blob in held}
        assert not gone, f"{name} removed {gone}"

    def _shards(self) -> set[tuple[str, ShardName]]:
        return {
            (name, shard) for name, drive in self.cluster.drives.items() for shard in drive.shards
        }

    def _held_shards(self) -> set[tuple[str, ShardName]]:
        found = set()
        for ref in Audit(self.cluster, self.process).held().values():
            _, nodes, group = self.process.topology.location(ref)
            for index, node in enumerate(nodes):
                found.add((node, ShardName(ref.profile, group.number, ref.blob, index)))
        return found & self._shards()

    async def _collect(self) -> None:
        await self._work("collect", lambda: on_demand.collect_garbage(self.process.storage))

    async def _merge(self) -> None:
        await self._work("merge", lambda: on_demand.merge_all(self.process.storage))

    async def _repair(self) -> None:
        await self._work("repair", lambda: on_demand.repair_all(self.process.storage))

    async def _scrub(self) -> None:
        await self._work("scrub", lambda: on_demand.verify_all(self.process.storage))

    async def _end_stale_uploads(self) -> None:
        """Uploads a day old go; those whose Complete died accept parts again."""
        storage = self.process.storage
        await self._work(
            "end stale uploads", lambda: on_demand.end_stale_uploads(storage, DAY_SECONDS)
        )
        for upload_id, upload in list(self.uploads.items()):
            item = self.cluster.engine.items.get(keys.upload(BUCKET, upload.key, upload_id))
            if item is None:
                del self.uploads[upload_id]
            else:
                upload.taken = decode(UploadRecord, item.value).state != "open"

    # The world

    async def _pass_time(self) -> None:
        self.cluster.clock.advance(self.random.choice((20.0, 1000.0, 3700.0, DAY_SECONDS + 1)))

    async def _fail_node(self) -> None:
        if len(self.down) < DOWN_MAX:
            name = self.random.choice(sorted(set(self.cluster.drives) - self.down))
            if not self._can_do_without(self.down | {name}):
                return
            self.cluster.drives[name].inject(Fault(error=DriveUnreachable("refused")))
            self.down.add(name)
            self.log.append(f"{name} fails")

    def _can_do_without(self, down: set[str]) -> bool:
        """Whether everything can be read without these nodes. A blob that lost a node while it was
        written survives one more loss until it is repaired, not two."""
        for ref in Audit(self.cluster, self.process).held().values():
            scheme, nodes, _ = self.process.topology.location(ref)
            if not scheme.decodable(i for i, node in enumerate(nodes) if node and node not in down):
                return False
        return True

    async def _stumble(self) -> None:
        """A node fails a few calls, in the middle of whatever comes next."""
        if not self.down:
            name = self.random.choice(sorted(self.cluster.drives))
            fault = Fault(error=DriveUnreachable("reset"), times=self.random.randrange(1, 4))
            calls = ("write", "append", "commit", "delete", "verify", "list", "quarantine")
            self.cluster.drives[name].inject(fault, *self.random.sample(calls, 3))
            self.log.append(f"{name} stumbles")

    async def _heal(self) -> None:
        for drive in self.cluster.drives.values():
            drive.heal()
        self.down.clear()
        self.cluster.clock.advance(20.0)
        self.log.append("all nodes are back")

    async def _rot(self) -> None:
        """Flip a bit in every shard of two drives; verification and repair must mend them all."""
        await self._heal()
        await on_demand.merge_all(self.process.storage)
        await on_demand.repair_all(self.process.storage)
        if any("" in ref.nodes for ref in Audit(self.cluster, self.process).held().values()):
            return  # written around lost nodes, and held by an upload that is being completed
        for name in self.random.sample(sorted(self.cluster.drives), 2):
            drive = self.cluster.drives[name]
            for shard, data in drive.shards.items():
                place = self.random.randrange(len(data))
                flipped = data[place] ^ (1 << self.random.randrange(8))
                drive.shards[shard] = data[:place] + bytes([flipped]) + data[place + 1 :]
        self.log.append("two drives rot")
        for key, data in self.objects.items():
            assert await operations.get(self.process, key) == data
        await on_demand.verify_all(self.process.storage)
        await on_demand.repair_all(self.process.storage)
        for ref in Audit(self.cluster, self.process).held().values():
            Audit(self.cluster, self.process).check_whole(ref)

    async def _rest(self) -> None:
        """Everything returns, all waits are over: nothing is left but what is held, at home."""
        await self._heal()
        for upload_id in [i for i, upload in self.uploads.items() if upload.taken]:
            await operations.abort(self.process, self.uploads.pop(upload_id).key, upload_id)
        storage = self.process.storage
        for _ in range(3):
            await on_demand.merge_all(storage)
            await on_demand.repair_all(storage)
            self.cluster.clock.advance(2 * DAY_SECONDS)
            await on_demand.purge_trash(storage)
            await on_demand.collect_garbage(storage)
        await on_demand.expire_completed(storage)
        audit = Audit(self.cluster, self.process)
        audit.check_at_rest()
        assert not audit.under(keys.COMPLETED)
        assert not audit.under(keys.TRASH)
        assert not audit.under(keys.PURGES)
        for ref in audit.held().values():
            audit.check_whole(ref)
            assert not ref.nodes, "a blob is not at home"
        for key in KEYS:
            await self._settle_key(key, self.objects.get(key))
