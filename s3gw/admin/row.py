"""One row of the route table of the admin port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

Handler = Callable[..., Awaitable[msgspec.Struct]]
StructType = type[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Row:
    """One operation. `open_to_all`: it wants no signature. `conflicts`: it answers 409 when the
    store is not in the state that it needs. `repeatable`: doing it again does no harm, so that its
    signature is not remembered, and it goes even when the metadata engine is full."""

    method: str
    path: str
    operation: str
    summary: str
    handler: Handler
    answer: StructType
    path_type: StructType | None = None
    query_type: StructType | None = None
    body_type: StructType | None = None
    open_to_all: bool = False
    conflicts: bool = False
    repeatable: bool = False

    @property
    def action(self) -> str:
        """What policies call it: `s3gw:ListNodes`."""
        return f"s3gw:{self.operation[:1].upper()}{self.operation[1:]}"
