"""Conditional requests: RFC 9110 §13 on reads, S3's rules on copies and writes.

Reads follow RFC 9110 §13.2.2: If-Match, or else If-Unmodified-Since, decides 412; then
If-None-Match, or else If-Modified-Since, decides 304. S3's documented combinations for GET and for
the source of a copy are that order; a copy answers 412 where a read answers 304.

Entity tags are kept without quotes and are always strong. Times are Unix seconds; a stored time
counts in whole seconds, because HTTP dates do. A date that does not parse is as if absent
(RFC 9110 §13.1.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s3gw.errors import (
    InvalidArgument,
    NoSuchKey,
    NotImplementedS3,
    NotModified,
    PreconditionFailed,
)
from s3gw.wire.dates import http_date, parse_http_date, parse_iso8601_ms

COPY_SOURCE_PREFIX = "x-amz-copy-source-"
RENAME_SOURCE_PREFIX = "x-amz-rename-source-"
SIZE_DIGITS_MAX = 19


@dataclass(frozen=True, slots=True)
class Current:
    """The state that conditions are judged against. `last_modified` in Unix seconds."""

    etag: str
    last_modified: float
    size: int


def _split_tags(header: str) -> frozenset[str]:
    """The entity tags of a list, each as sent but for its quotes; weak ones keep `W/`.

    S3's tags hold no comma. Unquoted tags are accepted, as S3 does.
    """
    return frozenset(_unquoted(tag.strip()) for tag in header.split(","))


def _unquoted(tag: str) -> str:
    if tag.startswith("W/"):
        return "W/" + tag[2:].strip('"')
    return tag.strip('"')


def _matches(header: str, etag: str, *, weakly: bool) -> bool:
    if header.strip() == "*":
        return True
    tags = _split_tags(header)
    return etag in tags or (weakly and "W/" + etag in tags)


@dataclass(frozen=True, slots=True)
class ReadConditions:
    """The four conditions of a GET, a HEAD or a copy's source, as sent."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str], prefix: str = "") -> ReadConditions:
        """From headers by lower-case name; `prefix` is COPY_SOURCE_PREFIX for a copy's source."""
        return cls(
            headers.get(prefix + "if-match"),
            headers.get(prefix + "if-none-match"),
            _date(headers.get(prefix + "if-modified-since")),
            _date(headers.get(prefix + "if-unmodified-since")),
        )

    def check(self, current: Current) -> None:
        """Proceed, or raise PreconditionFailed (412) or NotModified (304, with its headers)."""
        failed = self._failed(current)
        if failed is None:
            return
        if failed in ("If-None-Match", "If-Modified-Since"):
            raise NotModified(
                headers={
                    "ETag": f'"{current.etag}"',
                    "Last-Modified": http_date(current.last_modified),
                }
            )
        raise PreconditionFailed(Condition=failed)

    def check_copy_source(self, current: Current) -> None:
        """Proceed, or raise PreconditionFailed: a copy has no 304."""
        failed = self._failed(current)
        if failed is not None:
            raise PreconditionFailed(Condition=COPY_SOURCE_PREFIX + failed)

    @classmethod
    def of_rename(cls, headers: Mapping[str, str], prefix: str = "") -> ReadConditions:
        """Those of a rename's target, or with RENAME_SOURCE_PREFIX of its source. Raises
        InvalidArgument for a date that is none: a write does not pass over a condition."""
        for name in ("if-modified-since", "if-unmodified-since"):
            value = headers.get(prefix + name)
            if value is not None and parse_http_date(value) is None:
                raise _bad_argument(prefix + name, value)
        return cls.of(headers, prefix)

    def check_renamed(self, current: Current | None, prefix: str = "") -> None:
        """Proceed, or raise PreconditionFailed: also where something must be there and is not."""
        if current is not None:
            failed = self._failed(current)
        elif self.if_match is not None:
            failed = "If-Match"
        else:
            since = self.if_none_match is None and self.if_modified_since is not None
            failed = "If-Modified-Since" if since else None
        if failed is not None:
            raise PreconditionFailed(Condition=prefix + failed)

    def _failed(self, current: Current) -> str | None:
        modified = int(current.last_modified)
        if self.if_match is not None:
            if not _matches(self.if_match, current.etag, weakly=False):
                return "If-Match"
        elif self.if_unmodified_since is not None and modified > self.if_unmodified_since:
            return "If-Unmodified-Since"
        if self.if_none_match is not None:
            if _matches(self.if_none_match, current.etag, weakly=True):
                return "If-None-Match"
        elif self.if_modified_since is not None and modified <= self.if_modified_since:
            return "If-Modified-Since"
        return None


def range_applies(if_range: str | None, current: Current) -> bool:
    """Whether a Range counts: not if If-Range names another state (RFC 9110 §13.1.5), by a strong
    entity tag or by the exact date."""
    if if_range is None:
        return True
    when = parse_http_date(if_range)
    if when is not None:
        return when == int(current.last_modified)
    return _unquoted(if_range.strip()) == current.etag


@dataclass(frozen=True, slots=True)
class WriteConditions:
    """The conditions of a PUT, Complete, Copy (`of_put`) or DELETE (`of_delete`).

    Judge them with `check`, and again by the guard of the commit: a check alone is a race.
    """

    if_match: str | None = None
    if_absent: bool = False
    if_last_modified: int | None = None
    if_size: int | None = None
    deleting: bool = False

    @classmethod
    def of_put(cls, headers: Mapping[str, str]) -> WriteConditions:
        """From the headers of PutObject, CompleteMultipartUpload or CopyObject.

        Raises NotImplementedS3 for what S3 does not offer on writes; nothing is ignored.
        """
        if_match = headers.get("if-match")
        if_none_match = headers.get("if-none-match")
        for name in ("if-modified-since", "if-unmodified-since"):
            if name in headers:
                raise _not_offered(name.title())
        if if_none_match is not None:
            if if_none_match.strip() != "*" or if_match is not None:
                raise _not_offered("If-None-Match")
            return cls(if_absent=True)
        return cls(if_match=if_match)

    @classmethod
    def of_delete(cls, headers: Mapping[str, str]) -> WriteConditions:
        """From the headers of DeleteObject. Raises NotImplementedS3, InvalidArgument."""
        for name in ("if-none-match", "if-modified-since", "if-unmodified-since"):
            if name in headers:
                raise _not_offered(name.title())
        return cls.of_delete_entry(
            headers.get("if-match"),
            headers.get("x-amz-if-match-last-modified-time"),
            headers.get("x-amz-if-match-size"),
        )

    @classmethod
    def of_delete_entry(
        cls, if_match: str | None, last_modified: str | None, size: str | None
    ) -> WriteConditions:
        """From the texts of one object in DeleteObjects. Raises InvalidArgument."""
        when = None
        if last_modified is not None:
            when = parse_http_date(last_modified)
            if when is None and (milliseconds := parse_iso8601_ms(last_modified)) is not None:
                when = milliseconds // 1000  # in XML, where other times look so
            if when is None:
                raise _bad_argument("x-amz-if-match-last-modified-time", last_modified)
        size_bytes = None
        if size is not None:
            if not (size.isascii() and size.isdigit()) or len(size) > SIZE_DIGITS_MAX:
                raise _bad_argument("x-amz-if-match-size", size)
            size_bytes = int(size)
        return cls(if_match, if_last_modified=when, if_size=size_bytes, deleting=True)

    def __bool__(self) -> bool:
        """Whether there is any condition."""
        return (
            self.if_absent
            or self.if_match is not None
            or self.if_last_modified is not None
            or self.if_size is not None
        )

    @property
    def telling(self) -> bool:
        """Whether the outcome tells more than whether there is an object."""
        etag = self.if_match is not None and self.if_match.strip() != "*"
        return etag or self.if_last_modified is not None or self.if_size is not None

    def check(self, current: Current | None) -> None:
        """Proceed, or raise PreconditionFailed (412); `current` is None for no object there.

        With If-Match a missing key is 404 NoSuchKey, as on S3; the size and the time of what a
        DELETE does not find are no matter: it is gone.
        """
        if not self:
            return
        if current is None:
            if self.if_absent or (self.deleting and self.if_match is None):
                return
            raise NoSuchKey
        if self.if_absent:
            raise PreconditionFailed(Condition="If-None-Match")
        if self.if_match is not None and not _matches(self.if_match, current.etag, weakly=False):
            raise PreconditionFailed(Condition="If-Match")
        if self.if_last_modified is not None and self.if_last_modified != int(
            current.last_modified
        ):
            raise PreconditionFailed(Condition="x-amz-if-match-last-modified-time")
        if self.if_size is not None and self.if_size != current.size:
            raise PreconditionFailed(Condition="x-amz-if-match-size")


def _date(text: str | None) -> int | None:
    return None if text is None else parse_http_date(text)


def _not_offered(header: str) -> NotImplementedS3:
    return NotImplementedS3(
        "A header you provided implies functionality that is not implemented", Header=header
    )


def _bad_argument(name: str, value: str) -> InvalidArgument:
    return InvalidArgument(
        f"The value of {name} is not valid.", ArgumentName=name, ArgumentValue=value
    )
