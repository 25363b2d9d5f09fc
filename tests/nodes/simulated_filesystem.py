"""A file system that loses power.

Every file has the bytes that programs see and the bytes that are on the disk, every directory the
names that programs see and changes not yet synced. A power cut keeps, for each file, a random mix
of 512-byte sectors, old and new, and any of the lengths between; and for each directory any subset
of its unsynced changes. That is harsher than journalling file systems are: what survives it relies
on nothing but fsync. `PowerCut` is raised at a chosen step, from then on at every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from nodes.filesystem import Space
from nodes.protocol import Buffer

SECTOR_BYTES = 512


class PowerCut(BaseException):
    """The machine is off. Not an Exception: no code may handle it."""


@dataclass(eq=False)
class File:
    seen: bytearray = field(default_factory=bytearray)
    stored: bytes = b""
    named: int = 0


@dataclass(eq=False)
class Directory:
    seen: dict[str, File | Directory] = field(default_factory=dict)
    stored: dict[str, File | Directory] = field(default_factory=dict)
    # Changes since the last sync: a name with what it was given, None when it was taken.
    changes: list[tuple[str, File | Directory | None]] = field(default_factory=list)

    def change(self, name: str, to: File | Directory | None) -> None:
        self.changes.append((name, to))
        if to is None:
            del self.seen[name]
        else:
            self.seen[name] = to


class SimulatedFilesystem:
    """Implements `nodes.filesystem.Filesystem`; `cut_at` is the number of the call that fails."""

    def __init__(self, random: Random, cut_at: int) -> None:
        self._random = random
        self.cut_at = cut_at
        self.steps = 0
        self.off = False
        self.root = Directory()
        for name in ("data", "quarantine", "tmp"):
            self.root.change(name, Directory())
        self._store(self.root)
        self._open: dict[int, File | Directory] = {}

    def restart(self) -> None:
        """After a power cut: programs see what is on the disk."""
        self._lose(self.root)
        self._open.clear()
        self.off = False
        self.cut_at = 1 << 60

    def _step(self) -> bool:
        """Count a call. True when the power goes during it: it may take effect in part."""
        if self.off:
            raise PowerCut
        self.steps += 1
        self.off = self.steps == self.cut_at
        return self.off

    def _end(self, cut: bool) -> None:
        if cut:
            raise PowerCut

    def _find(self, path: str) -> tuple[Directory, str]:
        directory = self.root
        *parents, name = path.split("/")
        for parent in parents:
            found = directory.seen.get(parent)
            if not isinstance(found, Directory):
                raise FileNotFoundError(path)
            directory = found
        return directory, name

    def _file(self, path: str) -> File:
        directory, name = self._find(path)
        found = directory.seen.get(name)
        if not isinstance(found, File):
            raise FileNotFoundError(path)
        return found

    def _keep(self, item: File | Directory) -> int:
        self._open[self.steps] = item
        return self.steps

    def _directory_at(self, descriptor: int) -> Directory:
        found = self._open[descriptor]
        assert isinstance(found, Directory)
        return found

    def _file_at(self, descriptor: int) -> File:
        found = self._open[descriptor]
        assert isinstance(found, File)
        return found

    def make_directory(self, path: str) -> None:
        cut = self._step()
        directory, name = self._find(path)
        if name not in directory.seen:
            directory.change(name, Directory())
        self._end(cut)

    def open_directory(self, path: str) -> int:
        self._end(self._step())
        if path == ".":
            return self._keep(self.root)
        directory, name = self._find(path)
        found = directory.seen.get(name)
        if not isinstance(found, Directory):
            raise FileNotFoundError(path)
        return self._keep(found)

    def sync_directory(self, directory: int) -> None:
        cut = self._step()
        if not cut or self._random.random() < 0.5:
            self._store(self._directory_at(directory))
        self._end(cut)

    def create(self, directory: int) -> int:
        self._end(self._step())
        self._directory_at(directory)
        return self._keep(File())

    def write(self, file: int, buffers: Sequence[Buffer]) -> None:
        cut = self._step()
        data = b"".join(buffers)
        if cut:
            data = data[: self._random.randint(0, len(data))]
        self._file_at(file).seen += data
        self._end(cut)

    def sync_data(self, file: int) -> None:
        cut = self._step()
        found = self._file_at(file)
        if not cut or self._random.random() < 0.5:
            found.stored = bytes(found.seen)
        self._end(cut)

    def publish(self, file: int, directory: int, name: str) -> None:
        cut = self._step()
        target = self._directory_at(directory)
        if name in target.seen:
            raise FileExistsError(name)
        target.change(name, self._file_at(file))
        self._file_at(file).named = self.steps
        self._end(cut)

    def close(self, descriptor: int) -> None:
        self._end(self._step())
        del self._open[descriptor]

    def read(self, path: str, offset: int, length: int) -> bytes:
        self._end(self._step())
        return bytes(self._file(path).seen[offset : offset + length])

    def size(self, path: str) -> int:
        self._end(self._step())
        return len(self._file(path).seen)

    def changed(self, path: str) -> float:
        self._end(self._step())
        return self._file(path).named

    def now(self) -> float:
        """Each step takes a second."""
        return self.steps

    def remove(self, path: str) -> None:
        cut = self._step()
        self._file(path)
        directory, name = self._find(path)
        directory.change(name, None)
        self._end(cut)

    def move(self, source: str, target: str) -> None:
        cut = self._step()
        file = self._file(source)
        to, to_name = self._find(target)
        if to_name in to.seen:
            raise FileExistsError(target)
        to.change(to_name, file)
        self._end(cut)
        self._store(to)
        directory, name = self._find(source)
        directory.change(name, None)

    def entries(self, path: str) -> list[tuple[str, int]]:
        self._end(self._step())
        try:
            directory, name = self._find(path)
        except FileNotFoundError:
            return []
        found = directory.seen.get(name)
        if not isinstance(found, Directory):
            return []
        return [(n, len(f.seen)) for n, f in found.seen.items() if isinstance(f, File)]

    def space(self) -> Space:
        return Space(1 << 40, 1 << 39)

    def open_table(self, path: str, size: int) -> int:
        cut = self._step()
        directory, name = self._find(path)
        found = directory.seen.get(name)
        if not isinstance(found, File):
            found = File(bytearray(size), bytes(size))
            directory.change(name, found)
        self._end(cut)
        return self._keep(found)

    def read_at(self, file: int, offset: int, length: int) -> bytes:
        self._end(self._step())
        return bytes(self._file_at(file).seen[offset : offset + length])

    def write_at(self, file: int, offset: int, data: bytes) -> None:
        cut = self._step()
        self._file_at(file).seen[offset : offset + len(data)] = data
        self._end(cut)

    def lock(self, file: int, *, exclusive: bool) -> None:
        self._end(self._step())

    def unlock(self, file: int) -> None:
        if self.off:
            raise PowerCut

    def shut(self) -> None:
        self._end(self._step())

    def _store(self, directory: Directory) -> None:
        directory.stored = dict(directory.seen)
        directory.changes.clear()

    def _lose(self, directory: Directory) -> None:
        names = dict(directory.stored)
        for name, to in directory.changes:
            if self._random.random() < 0.5:
                continue
            if to is None:
                names.pop(name, None)
            else:
                names[name] = to
        directory.seen, directory.stored = dict(names), names
        directory.changes.clear()
        for found in names.values():
            if isinstance(found, Directory):
                self._lose(found)
            else:
                self._tear(found)

    def _tear(self, file: File) -> None:
        old, new = file.stored, bytes(file.seen)
        if old != new:
            length = self._random.choice([len(old), self._random.randint(0, len(new)), len(new)])
            mixed = bytearray(length)
            for start in range(0, length, SECTOR_BYTES):
                end = min(start + SECTOR_BYTES, length)
                sector = self._random.choice([old, new])[start:end]
                mixed[start : start + len(sector)] = sector
            file.stored = bytes(mixed)
        file.seen = bytearray(file.stored)
