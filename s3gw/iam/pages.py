"""Pages of lists: `MaxItems` of them behind `Marker`, and where to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from s3gw.errors import InvalidArgument
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.errors import ValidationError
from s3gw.wire.tokens import Position, decode_token, encode_token

T = TypeVar("T")

ITEMS_DEFAULT = 100


def page(
    call: QueryCall, items: Sequence[T], name_of: Callable[[T], str]
) -> tuple[list[T], Result]:
    """The items of the page that the call asks for, in the order of their names, whatever their
    case, and the elements that say whether more follow. Raises ValidationError for a marker that is
    none of this list."""

    def place_of(item: T) -> tuple[str, str]:
        return _place(name_of(item))

    secret = call.store.store.identity.token_secret
    context = f"iam {call.action.name}".encode()
    ordered = sorted(items, key=place_of)
    marker = call.parameters.optional("Marker")
    if marker is not None:
        try:
            after = decode_token(secret, context, marker, "Marker").key.decode()
        except InvalidArgument:
            raise ValidationError("Invalid Marker.") from None
        ordered = [item for item in ordered if place_of(item) > _place(after)]
    most = call.parameters.integer("MaxItems") or ITEMS_DEFAULT
    found = ordered[:most]
    if len(ordered) <= most:
        return found, {"IsTruncated": False}
    token = encode_token(secret, context, Position(name_of(found[-1]).encode()))
    return found, {"IsTruncated": True, "Marker": token}


def _place(name: str) -> tuple[str, str]:
    return name.lower(), name
