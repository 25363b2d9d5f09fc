"""Membership: nodes register under leases, gateways watch them.

`Registration` is the node's side: a record `node/<id>` that dies with the lease. It is created
only if absent, or taken over from a former process of the same drive, which the nonce in the
drive's id file proves. A *copy* of the drive has the same nonce; two rules keep it out. Every start
draws a new nonce, so a copy made before the last start has an outdated one. And a registration at
another address is not taken over but waited for: if a live process renews it, it stays, and whoever
waits is refused. `Membership` is everybody else's side: it keeps the directory of nodes, and
the topology, in step with the engine. A watch is a hint: everything is also read again
periodically, and whenever the watch says that it may have missed something.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, cast

import msgspec

from nodes.protocol import Drive
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.epochs import ACTIVE, epoch_of, latest
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.topology import Topology
from s3gw.kv.interface import (
    KV,
    At,
    Conflict,
    Delete,
    EngineError,
    Event,
    EventKind,
    Item,
    Put,
)
from s3gw.limits import SCAN_ITEMS_MAX
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutNode, LayoutRecord, NodeRecord, decode, encode

log = logging.getLogger(__name__)

RELIST_SECONDS = 5.0
RELISTS_PER_LOAD = 12
RETRY_SECONDS = 0.5


class NodeIdTaken(Exception):
    """Another drive is registered under this id."""


class NonceUnavailable(Exception):
    """The drive's id file cannot be read or written."""


class NextNonce(Protocol):
    """Draws the nonce for a registration that replaces the one with nonce `registered` (None: there
    is none). Raises NodeIdTaken when the drive cannot prove that it was its own,
    NonceUnavailable."""

    async def __call__(self, node_id: str, registered: str | None) -> str: ...


class MakeDrive(Protocol):
    """Makes the drive behind a node's record."""

    def __call__(self, node_id: str, record: NodeRecord) -> Drive: ...


class Registration:
    """A node's records under its process's lease; one for each of its drives."""

    def __init__(
        self,
        kv: KV,
        lease: ProcessLease,
        records: dict[str, NodeRecord],
        next_nonce: NextNonce | None = None,
    ) -> None:
        """`next_nonce` None: the nonces of the records are used as they are."""
        self._kv = kv
        self._lease = lease
        self._records = records
        self._next_nonce = next_nonce
        self._registered_under = 0
        self._nonces: dict[str, str] = {}
        self._withdrawn: set[str] = set()
        # Whose record may not say what it is to say.
        self._unsettled: set[str] = set()

    def writes_allowed(self) -> bool:
        """Whether the lease still runs, counted from when its last renewal was sent."""
        return self._lease.held and self._registered_under == self._lease.id

    async def wait_for_former(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Return when none of the nodes is registered at another address than ours: a process that
        died there is gone when its lease has ended. To be called before the lease is taken, which
        nobody renews meanwhile. Raises NodeIdTaken after `seconds`, EngineError."""
        end = clock() + seconds
        for node_id, record in self._records.items():
            while True:
                (item,) = (await self._kv.get_many([keys.node(node_id)])).items
                there = decode(NodeRecord, item.value).address if item is not None else ""
                if there in ("", record.address):
                    break
                if clock() >= end:
                    raise NodeIdTaken(f"node {node_id} lives at {there}: this is a copy of it")
                await sleep(RETRY_SECONDS)

    async def register(self) -> None:
        """Write the records. A drive whose id file has failed is left out, as long as another one
        works. Raises NodeIdTaken, NonceUnavailable, EngineError."""
        lease, failed = self._lease.id, 0
        for node_id in self._records:
            if node_id in self._withdrawn:
                continue
            try:
                await self._register(node_id, lease)
            except NonceUnavailable as error:
                failed += 1
                log.warning("node %s is not registered: %s", node_id, error)
                if failed == len(self._records):
                    raise
        self._registered_under = lease

    async def _register(self, node_id: str, lease: int) -> None:
        key, record = keys.node(node_id), self._records[node_id]
        while True:
            (item,) = (await self._kv.get_many([key])).items
            registered = decode(NodeRecord, item.value).nonce if item is not None else None
            if self._next_nonce is not None:
                nonce = await self._next_nonce(node_id, registered)
                record = msgspec.structs.replace(record, nonce=nonce)
            elif registered not in (None, record.nonce):
                raise NodeIdTaken(f"another drive is registered as node {node_id}")
            guard = At(key, item.revision if item else 0)
            self._nonces[node_id] = record.nonce
            try:
                await self._kv.commit([guard], [Put(key, encode(record), lease)])
            except Conflict:
                continue
            return

    async def drive_changed(self, node: Node, up: bool) -> None:
        """Withdraw the record of a drive that does not work, as if its lease had ended, or register
        it again; the other drives of the process stay. What the engine does not take now is left
        to `keep_drives`."""
        if up:
            self._withdrawn.discard(node.id)
        else:
            self._withdrawn.add(node.id)
        self._unsettled.add(node.id)
        await self.settle()

    async def keep_drives(
        self,
        heartbeat_seconds: float,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Settle again and again, for ever. Not in `keep`: a drive that hangs while its nonce is
        noted would keep the lease of all from being renewed."""
        while True:
            await sleep(heartbeat_seconds)
            await self.settle()

    async def settle(self) -> None:
        """Bring the records of drives that went down or came up in step with that."""
        lease = self._lease.id
        if not lease or self._registered_under != lease:
            return  # `register` leaves out those that are withdrawn; the others come behind it
        for node_id in sorted(self._unsettled):
            self._unsettled.discard(node_id)
            up = node_id not in self._withdrawn
            try:
                if up:
                    await self._register(node_id, lease)
                else:
                    await self._withdraw(node_id)
                if up != (node_id not in self._withdrawn):  # it changed meanwhile
                    self._unsettled.add(node_id)
            except (NonceUnavailable, EngineError) as error:
                self._unsettled.add(node_id)
                log.info("the registration of node %s is not settled: %s", node_id, error)
            except NodeIdTaken as error:
                self._withdrawn.add(node_id)
                log.error("node %s stays withdrawn: %s", node_id, error)  # noqa: TRY400

    async def _withdraw(self, node_id: str) -> None:
        """Remove the record, unless it is of another process by now. Raises EngineError."""
        key = keys.node(node_id)
        while True:
            (item,) = (await self._kv.get_many([key])).items
            if item is None or decode(NodeRecord, item.value).nonce != self._nonces.get(node_id):
                return
            try:
                await self._kv.commit([At(key, item.revision)], [Delete(key)])
            except Conflict:
                continue
            return

    async def keep(self, heartbeat_seconds: float) -> None:
        """Renew the lease for ever; register again after it was lost."""
        while True:
            await asyncio.sleep(heartbeat_seconds)
            await self._lease.renew()
            if self._lease.held and self._registered_under != self._lease.id:
                try:
                    await self.register()
                except EngineError as error:
                    log.warning("the node could not register again: %s", error)


class Membership:
    """Keeps a directory and a topology like the engine has them."""

    def __init__(
        self, kv: KV, directory: Directory, topology: Topology, make_drive: MakeDrive | None
    ) -> None:
        """`make_drive` None: the nodes are fixed (drives of this machine), only placement moves."""
        self._kv = kv
        self._directory = directory
        self._topology = topology
        self._make_drive = make_drive
        self._records: dict[str, NodeRecord] = {}
        self._failing: frozenset[str] = frozenset()
        self._places: dict[str, LayoutNode] = {}
        self.epoch = 0
        self.layout = LayoutRecord(0, (), ())

    @property
    def leases_tell(self) -> bool:
        """Whether a node lives as long as its lease, and not as long as a drive here works."""
        return self._make_drive is not None

    def layout_epoch(self) -> int:
        return self.epoch

    def add(self, node: Node) -> None:
        """Let a drive of this machine that came just now be a node."""
        node.failing = node.id in self._failing
        self._place(node)
        self._directory.add(node)

    async def load(self) -> None:
        """Read nodes, layout and placement. Raises EngineError."""
        if self._make_drive is not None:
            await self._load_nodes()
        await self._load_failures()
        await self._topology.load()
        await self.refresh()

    async def refresh(self) -> None:
        """Read the last layout, and with it the nodes' states. Raises EngineError."""
        item = await latest(self._kv)
        if item is not None:
            self._learn_layout(item)

    async def _scan(self, prefix: bytes) -> list[Item]:
        page = await self._kv.scan(prefix, keys.after_prefix(prefix), limit=SCAN_ITEMS_MAX)
        return page.items

    async def _load_nodes(self) -> None:
        items = await self._scan(keys.NODES)
        present = {item.key[len(keys.NODES) :].decode(): item for item in items}
        for node in self._directory.all():
            if node.id not in present:
                node.live = False
        for node_id, item in present.items():
            self._learn_node(node_id, decode(NodeRecord, item.value))

    async def _load_failures(self) -> None:
        """Read which nodes an operator wants to count as down."""
        items = await self._scan(keys.FAILURES)
        self._set_failing(frozenset(item.key[len(keys.FAILURES) :].decode() for item in items))

    def _set_failing(self, failing: frozenset[str]) -> None:
        self._failing = failing
        for node in self._directory.all():
            node.failing = node.id in failing

    def _see_failure(self, event: Event) -> None:
        node_id = event.key[len(keys.FAILURES) :].decode()
        if event.kind is EventKind.PUT:
            self._set_failing(self._failing | {node_id})
        else:
            self._set_failing(self._failing - {node_id})

    def _learn_node(self, node_id: str, record: NodeRecord) -> None:
        assert self._make_drive is not None
        known = self._records.get(node_id)
        node = self._directory.get(node_id)
        if known is None or node is None or known.address != record.address:
            drive = self._make_drive(node_id, record)
            node = Node(node_id, record.zone, drive, record.host)
            self._directory.add(node)
        elif not node.live:
            node.answered()
        node.live = True
        node.failing = node_id in self._failing
        self._place(node)
        self._records[node_id] = record

    def _learn_layout(self, item: Item) -> None:
        epoch = epoch_of(item.key)
        if epoch >= self.epoch:
            # All at once: a commit that is guarded by the epoch counts on the states.
            self.epoch = epoch
            self.layout = decode(LayoutRecord, item.value)
            self._places = {node.node: node for node in self.layout.nodes}
            for node in self._directory.all():
                self._place(node)

    def _place(self, node: Node) -> None:
        """Where the layout has the node. Before there is a layout, every node belongs."""
        place = self._places.get(node.id)
        node.member = place is not None or not self._places
        node.state = place.state if place is not None else ACTIVE
        if place is not None:
            node.zone = place.zone

    async def follow(self) -> None:
        """Watch and relist for ever."""
        prefixes: list[tuple[bytes, Callable[[Event], None]]] = [
            (keys.PGS, self._see_group),
            (keys.LAYOUTS, self._see_layout),
            (keys.FAILURES, self._see_failure),
        ]
        if self._make_drive is not None:
            prefixes.append((keys.NODES, self._see_node))
        await asyncio.gather(
            self._relist(), *(self._watch(prefix, see) for prefix, see in prefixes)
        )

    async def _relist(self) -> None:
        while True:
            for _ in range(RELISTS_PER_LOAD):
                await asyncio.sleep(RELIST_SECONDS)
                await self._quietly(self._load_failures())
                if self._make_drive is not None:
                    await self._quietly(self._load_nodes())
            await self._quietly(self.load())

    async def _quietly(self, load: Coroutine[Any, Any, None]) -> None:
        try:
            await load
        except EngineError as error:
            log.info("membership could not be read: %s", error)

    async def _watch(self, prefix: bytes, see: Callable[[Event], None]) -> None:
        while True:
            try:
                events = cast(
                    AsyncGenerator[Event, None],
                    self._kv.watch(prefix, after_revision=self._topology.revision),
                )
                async with aclosing(events):
                    async for event in events:
                        if event.kind is EventKind.RELIST:
                            await self._quietly(self.load())
                        else:
                            see(event)
            except EngineError as error:
                log.info("watching %r ended: %s", prefix, error)
            await asyncio.sleep(RETRY_SECONDS)

    def _see_node(self, event: Event) -> None:
        node_id = event.key[len(keys.NODES) :].decode()
        if event.kind is EventKind.PUT:
            self._learn_node(node_id, decode(NodeRecord, event.value))
            return
        node = self._directory.get(node_id)
        if node is not None:
            node.live = False

    def _see_group(self, event: Event) -> None:
        if event.kind is EventKind.PUT:
            self._topology.learn_group(Item(event.key, event.value, event.revision))

    def _see_layout(self, event: Event) -> None:
        if event.kind is EventKind.PUT:
            self._learn_layout(Item(event.key, event.value, event.revision))
