"""The `x-amz-copy-source` header: `[/]bucket/key[?versionId=id]`, percent-encoded once.

Source: API Reference, CopyObject. The version is split off before decoding, so that a key with an
encoded `?` stays a key; decoding happens once, so that `%252e` never becomes a dot. A `+` is a
space, as S3 reads it (rclone escapes plus signs for that reason).
"""

from __future__ import annotations

from dataclasses import dataclass

from s3gw.errors import InvalidArgument, KeyTooLongError
from s3gw.limits import KEY_BYTES_MAX
from s3gw.wire.percent import decode_form

VERSION_MARK = "?versionId="


@dataclass(frozen=True, slots=True)
class CopySource:
    """The object to copy from; `version_id` is None for the current version."""

    bucket: str
    key: str
    version_id: str | None = None


def parse_copy_source(header: str) -> CopySource:
    """Understand the header's value. Raises InvalidArgument, KeyTooLongError."""
    path, mark, version_id = header.rpartition(VERSION_MARK)
    if not mark:
        path, version_id = header, ""
    elif not version_id:
        raise _bad("Version id cannot be the empty string", header)
    source = _decoded(path, header).removeprefix("/")
    if source.startswith("arn:"):
        raise _bad("Copy sources given by an access point ARN are not supported", header)
    bucket, _, key = source.partition("/")
    if not bucket or not key:
        raise _bad(
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey", header
        )
    _check_length(key)
    return CopySource(bucket, key, _decoded(version_id, header) if mark else None)


def parse_rename_source(header: str, bucket: str) -> str:
    """The key in `x-amz-rename-source`, percent-encoded once: the key itself, or `/key`, or
    `/bucket/key` with the request's own bucket. Source: API Reference, RenameObject, whose examples
    give the bare key; SDKs and gateways write the others. Raises InvalidArgument, KeyTooLongError.

    >>> [parse_rename_source(text, "b") for text in ("a/x", "/a/x", "/b/a/x", "b/a", "a%2Bb+c")]
    ['a/x', 'a/x', 'a/x', 'b/a', 'a+b c']
    """
    try:
        key = decode_form(header)
    except ValueError:
        message = "Invalid rename source encoding."
        raise _bad(message, header, "x-amz-rename-source") from None
    if key.startswith("/"):
        key = key[1:].removeprefix(bucket + "/")
    if not key:
        raise _bad("Rename Source must mention the source key", header, "x-amz-rename-source")
    _check_length(key)
    return key


def _check_length(key: str) -> None:
    if len(key.encode()) > KEY_BYTES_MAX:
        raise KeyTooLongError(Size=str(len(key.encode())), MaxSizeAllowed=str(KEY_BYTES_MAX))


def _decoded(text: str, header: str) -> str:
    try:
        return decode_form(text)
    except ValueError:
        raise _bad("Invalid copy source encoding.", header) from None


def _bad(message: str, header: str, name: str = "x-amz-copy-source") -> InvalidArgument:
    return InvalidArgument(message, ArgumentName=name, ArgumentValue=header)
