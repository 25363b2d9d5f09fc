"""Header values that become part of an object, and come back with it.

Source: Amazon S3 User Guide, "Working with object metadata"; API Reference, PutObject, GetObject.

Headers reach the other functions of this package as text by lower-case name (`by_name`). HTTP
carries bytes; they are kept apart as latin-1, which maps each byte to one character and back.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping

from s3gw.errors import InvalidArgument, InvalidRequest, MetadataTooLarge
from s3gw.limits import USER_METADATA_BYTES_MAX

METADATA_PREFIX = "x-amz-meta-"
CHUNKED_ENCODING = "aws-chunked"

# Stored with the object and sent with it, in the order of PutObject's documentation.
CONTENT_HEADERS: Mapping[str, str] = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "content-type": "Content-Type",
    "expires": "Expires",
}

# Query parameter of a signed GET or HEAD, and the response header that it replaces.
RESPONSE_OVERRIDES: Mapping[str, str] = {f"response-{name}": name for name in CONTENT_HEADERS}

TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
CONTROL_CHARACTERS = dict.fromkeys((*range(32), 127))


def by_name(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Values by lower-case name; those of a repeated header joined with commas (RFC 9110 §5.3)."""
    values: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip(" \t")
        values[name] = f"{values[name]},{value}" if name in values else value
    return values


def user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """The `x-amz-meta-*` of a request by lower-case name without the prefix.

    Values in bytes beyond ASCII are read as UTF-8, else as latin-1.
    Raises MetadataTooLarge over 2 KiB of names and values in UTF-8, InvalidArgument for control
    characters and for names that are no token.
    """
    metadata: dict[str, str] = {}
    size = 0
    for header, sent in headers.items():
        if not header.startswith(METADATA_PREFIX):
            continue
        name = header.removeprefix(METADATA_PREFIX)
        if not name or not TOKEN_CHARACTERS.issuperset(name):
            raise _bad_value(header, sent, "Your metadata headers are not supported.")
        value = _check_printable(header, sent if sent.isascii() else _as_utf8(sent))
        metadata[name] = value
        size += len(name) + len(value.encode())
    if size > USER_METADATA_BYTES_MAX:
        raise MetadataTooLarge(Size=str(size), MaxSizeAllowed=str(USER_METADATA_BYTES_MAX))
    return metadata


def metadata_headers(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """Response headers of user metadata; values beyond ASCII as RFC 2047 words, as on S3."""
    return [(METADATA_PREFIX + name, _rfc2047(value)) for name, value in metadata.items()]


def content_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request to store with the object, by lower-case name.

    `aws-chunked` is framing and leaves Content-Encoding. Raises InvalidArgument for control
    characters.
    """
    stored: dict[str, str] = {}
    for name in CONTENT_HEADERS:
        value = headers.get(name)
        if value is None:
            continue
        if name == "content-encoding" and CHUNKED_ENCODING in value.lower():
            value = _without_chunked(value)
        if value:
            stored[name] = _check_printable(name, value)
    return stored


def response_overrides(query: Mapping[str, str], *, signed: bool) -> dict[str, str]:
    """The `response-*` parameters as response headers by lower-case name.

    Raises InvalidRequest when the request is not signed, InvalidArgument for a value that no
    header can carry.
    """
    overrides: dict[str, str] = {}
    for parameter, name in RESPONSE_OVERRIDES.items():
        value = query.get(parameter)
        if value is None:
            continue
        if not signed:
            raise InvalidRequest(
                "Request specific response headers cannot be used for anonymous GET requests."
            )
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            message = "Header value cannot be represented using ISO-8859-1."
            raise _bad_value(parameter, value, message) from None
        overrides[name] = _check_printable(parameter, value)
    return overrides


def _check_printable(name: str, value: str) -> str:
    """The value, unless it could end a header line or hide in one."""
    if value.translate(CONTROL_CHARACTERS) != value:
        raise _bad_value(name, value, "Header values must not contain control characters.")
    return value


def _as_utf8(sent: str) -> str:
    raw = sent.encode("latin-1")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return sent


def _rfc2047(value: str) -> str:
    if value.isascii():
        return value
    return f"=?UTF-8?B?{b64encode(value.encode()).decode()}?="


def _without_chunked(value: str) -> str:
    kept = (coding.strip() for coding in value.split(","))
    return ",".join(coding for coding in kept if coding and coding.lower() != CHUNKED_ENCODING)


def _bad_value(name: str, value: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, ArgumentName=name, ArgumentValue=value)
