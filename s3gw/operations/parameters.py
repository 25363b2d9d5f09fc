"""Query parameters that several operations read."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.operations.call import Call

INTEGER_MAX = 2**31 - 1


def integer(
    call: Call, name: str, *, default: int, least: int = 0, limit: int = INTEGER_MAX
) -> int:
    """An integer parameter between `least` and `limit`. Raises InvalidArgument.

    An empty value counts as not given, as on S3.
    """
    text = call.query.get(name, "")
    if not text:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 10 or int(digits) > INTEGER_MAX:
        message = f"Provided {name} not an integer or within integer range"
    elif not least <= int(text) <= limit:
        message = f"Argument {name} must be an integer between {least} and {limit}"
    else:
        return int(text)
    raise errors.InvalidArgument(message, ArgumentName=name, ArgumentValue=text)


def url_encoding(call: Call) -> bool:
    """Whether keys are to be percent-encoded (`encoding-type=url`). Raises InvalidArgument."""
    value = call.query.get("encoding-type", "")
    if value not in ("", "url"):
        raise errors.InvalidArgument(
            "Invalid Encoding Method specified in Request",
            ArgumentName="encoding-type",
            ArgumentValue=value,
        )
    return value == "url"


def part_number(call: Call) -> int:
    """`partNumber` of a part to write. Raises InvalidArgument."""
    text = call.query.get("partNumber", "")
    valid = text.isascii() and text.isdigit() and len(text) <= 5
    if not valid or not 1 <= int(text) <= limits.PART_NUMBER_MAX:
        raise errors.InvalidArgument(
            f"Part number must be an integer between 1 and {limits.PART_NUMBER_MAX}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text,
        )
    return int(text)


def upload_id(call: Call) -> bytes:
    """`uploadId`. Raises NoSuchUpload for what cannot be one."""
    text = call.query.get("uploadId", "")
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 16 or raw.hex() != text:
        raise errors.NoSuchUpload(UploadId=text)
    return raw
