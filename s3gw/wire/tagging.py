"""Object tags: the `x-amz-tagging` header and the rules that every tag set obeys.

Source: Amazon S3 User Guide, "Categorizing your objects using tags". Lengths count characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from s3gw.errors import BadRequest, InvalidArgument, InvalidTag
from s3gw.limits import OBJECT_TAGS_MAX, TAG_KEY_CHARACTERS_MAX, TAG_VALUE_CHARACTERS_MAX
from s3gw.wire.percent import decode_form

# Besides letters, digits and spaces of any script.
PUNCTUATION = frozenset("_.:/=+-@")
NOT_URL_ENCODED = (
    "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters "
    "without tag name duplicates."
)


def parse_tagging_header(header: str) -> dict[str, str]:
    """The tags of `x-amz-tagging` (`name=value&name=value`, percent-encoded), in order.

    Raises InvalidArgument, InvalidTag, BadRequest.
    """
    pairs: list[tuple[str, str]] = []
    for piece in header.split("&"):
        if not piece:
            continue
        name, _, value = piece.partition("=")
        pairs.append((_decoded(name, header), _decoded(value, header)))
        if len(pairs) > OBJECT_TAGS_MAX:
            raise BadRequest(f"Object tags cannot be greater than {OBJECT_TAGS_MAX}")
    names = {name for name, _ in pairs}
    if len(names) != len(pairs) or "" in names:
        raise _not_encoded(header)
    return check_tags(pairs)


def check_tags(
    pairs: Iterable[tuple[str, str]], count_max: int = OBJECT_TAGS_MAX, *, whose: str = "Object"
) -> dict[str, str]:
    """The tags by name, in order, when they obey the rules; `whose` is for the error of too many.
    Raises InvalidTag, BadRequest."""
    tags: dict[str, str] = {}
    for name, value in pairs:
        if not 0 < len(name) <= TAG_KEY_CHARACTERS_MAX or not _allowed(name):
            raise InvalidTag("The TagKey you have provided is invalid", TagKey=name)
        if len(value) > TAG_VALUE_CHARACTERS_MAX or not _allowed(value):
            raise InvalidTag("The TagValue you have provided is invalid", TagKey=name)
        if name.startswith("aws:"):
            raise InvalidTag("System tags cannot be added/updated by requester", TagKey=name)
        if name in tags:
            raise InvalidTag("Cannot provide multiple Tags with the same key", TagKey=name)
        tags[name] = value
    if len(tags) > count_max:
        raise BadRequest(f"{whose} tags cannot be greater than {count_max}")
    return tags


def _allowed(text: str) -> bool:
    # Categories L*, N*, Z* are letters, numbers and separators.
    return all(
        character in PUNCTUATION or unicodedata.category(character)[0] in "LNZ"
        for character in text
    )


def _decoded(text: str, header: str) -> str:
    try:
        return decode_form(text)
    except ValueError:
        raise _not_encoded(header) from None


def _not_encoded(header: str) -> InvalidArgument:
    return InvalidArgument(NOT_URL_ENCODED, ArgumentName="x-amz-tagging", ArgumentValue=header)
