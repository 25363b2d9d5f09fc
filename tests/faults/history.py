"""What clients did to a store, as a history that can be judged: bodies that describe themselves,
and every operation with the times of its invocation and of its response.

The state of a key is the ETag of its object, or None for no object. No body is ever written twice,
so an ETag names the one write that made it. Each answer is turned into what it says of the state:

| kind | holds when the state is | afterwards |
|---|---|---|
| WRITE (a PUT, a DELETE, a copy, a Complete) | anything | `etag` |
| CREATE (If-None-Match: *, 200) | None | `etag` |
| REPLACE (If-Match, 200) | `expected` | `etag` |
| READ (a GET, a HEAD, an entry of a listing or its absence, a 404) | `etag` | the same |
| EXISTS (If-None-Match: *, 412) | not None | the same |
| DIFFERS (If-Match, 412) | neither None nor `expected` | the same |

A write without an answer, or with a 5xx, has no end: `returned` is infinite. It may have happened,
may happen later, or never. What was refused with a 4xx did nothing and is not an operation; a read
that failed says nothing.
"""

import hashlib
import math
import random
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

UNKNOWN = math.inf
_FIELDS = 4

State = str | None


class Kind(StrEnum):
    WRITE = "write"
    CREATE = "create"
    REPLACE = "replace"
    READ = "read"
    EXISTS = "exists"
    DIFFERS = "differs"


CHANGES = frozenset({Kind.WRITE, Kind.CREATE, Kind.REPLACE})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on one key; times in seconds of one monotonic clock."""

    key: str
    kind: Kind
    etag: State
    invoked: float
    returned: float
    expected: State = None
    client: str = ""

    def holds(self, state: State) -> bool:
        """Whether the answer can have been given at this state."""
        match self.kind:
            case Kind.WRITE:
                return True
            case Kind.CREATE:
                return state is None
            case Kind.REPLACE:
                return state == self.expected
            case Kind.READ:
                return state == self.etag
            case Kind.EXISTS:
                return state is not None
            case Kind.DIFFERS:
                return state is not None and state != self.expected

    def after(self, state: State) -> State:
        return self.etag if self.kind in CHANGES else state


def body_of(key: str, client: str, sequence: int, size: int) -> bytes:
    """A body that says whose it is: key, client, sequence, length and the SHA-256 of the rest."""
    filler = random.Random(f"{key}/{client}/{sequence}").randbytes(size)
    return b"\0".join(
        [
            key.encode(),
            client.encode(),
            b"%d" % sequence,
            hashlib.sha256(filler).hexdigest().encode(),
            filler,
        ]
    )


def trouble_with(body: bytes, key: str) -> str:
    """Why these bytes are not a whole body that was written to `key`; "" when they are."""
    *head, filler = body.split(b"\0", _FIELDS)
    if len(head) != _FIELDS:
        return f"{len(body)} bytes that do not describe themselves"
    named, client, sequence, digest = (each.decode(errors="replace") for each in head)
    if named != key:
        return f"the body of {named} by {client}/{sequence}"
    if hashlib.sha256(filler).hexdigest() != digest:
        return f"a damaged body by {client}/{sequence}"
    return ""


def etag_of(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def etag_of_parts(parts: Iterable[bytes]) -> str:
    """The ETag of a multipart upload: MD5 over the MD5s, and their number."""
    digests = [hashlib.md5(part).digest() for part in parts]
    return f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(digests)}"


@dataclass(frozen=True, slots=True)
class Call:
    """One request: what it was, its status (0: no answer), when it began and how long it took."""

    name: str
    status: int
    started: float
    seconds: float


@dataclass
class History:
    """Operations of all clients. `wrong` is what is a violation whatever else happened."""

    operations: list[Operation] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *operations: Operation) -> None:
        with self._mutex:
            self.operations.extend(operations)

    def called(self, call: Call) -> None:
        with self._mutex:
            self.calls.append(call)

    def complain(self, text: str) -> None:
        with self._mutex:
            self.wrong.append(text)

    def of_key(self, key: str) -> list[Operation]:
        with self._mutex:
            return [each for each in self.operations if each.key == key]

    def keys(self) -> set[str]:
        with self._mutex:
            return {each.key for each in self.operations}

    def statuses(self) -> Counter[tuple[str, int]]:
        with self._mutex:
            return Counter((call.name, call.status) for call in self.calls)

    def acknowledged(self) -> int:
        """Changes that were answered with success."""
        with self._mutex:
            return sum(op.kind in CHANGES and op.returned < UNKNOWN for op in self.operations)
