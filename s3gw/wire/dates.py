"""Dates as HTTP and XML spell them.

HTTP dates (RFC 9110 §5.6.7) come in three forms and leave in one; XML timestamps are ISO 8601 in
UTC with milliseconds, as S3 sends them.
"""

from __future__ import annotations

from calendar import timegm
from datetime import datetime
from functools import lru_cache
from time import gmtime

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(MONTHS, 1)}
HTTP_DATE_CHARACTERS_MAX = 64
# Formatted seconds kept: a listing shows many objects, the access pattern few distinct seconds.
SECONDS_CACHED_MAX = 4096


@lru_cache(maxsize=SECONDS_CACHED_MAX)
def _http_date(seconds: int) -> str:
    t = gmtime(seconds)
    return (
        f"{DAYS[t.tm_wday]}, {t.tm_mday:02d} {MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    )


def http_date(seconds: float) -> str:
    """`Fri, 24 May 2013 00:00:00 GMT` for Unix seconds; the fraction is cut off."""
    return _http_date(int(seconds))


@lru_cache(maxsize=SECONDS_CACHED_MAX)
def _iso8601(seconds: int) -> str:
    t = gmtime(seconds)
    return (
        f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}"
        f"T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
    )


def iso8601_seconds(seconds: float) -> str:
    """`2013-05-24T00:00:00Z` for Unix seconds."""
    return _iso8601(int(seconds)) + "Z"


def iso8601_ms(milliseconds: int) -> str:
    """`2013-05-24T00:00:00.000Z` for Unix milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_iso8601(seconds)}.{rest:03d}Z"


def parse_iso8601_ms(text: str) -> int | None:
    """Unix milliseconds of an XML timestamp with its offset from UTC, or None when it is none."""
    try:
        when = datetime.fromisoformat(text.strip())
        return int(when.timestamp() * 1000) if when.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def parse_http_date(text: str) -> int | None:
    """Unix seconds of an HTTP date in any of its three forms, or None when it is none of them.

    The day's name is not compared, as S3 does not.

    >>> parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT")
    784111777
    >>> parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT")
    784111777
    >>> parse_http_date("Sun Nov  6 08:49:37 1994")
    784111777
    """
    if len(text) > HTTP_DATE_CHARACTERS_MAX or not text.isascii():
        return None
    words = text.split()
    if len(words) == 4 and words[1].count("-") == 2:
        words = [words[0], *words[1].split("-"), *words[2:]]
    if len(words) == 6 and words[0].endswith(",") and words[5] in ("GMT", "UTC", "+0000", "-0000"):
        _, day, month, year, clock, _ = words
    elif len(words) == 5 and not words[0].endswith(","):
        _, month, day, clock, year = words
    else:
        return None
    return _unix(year, month, day, clock)


def _unix(year: str, month: str, day: str, clock: str) -> int | None:
    parts = clock.split(":")
    month_number = MONTH_NUMBERS.get(month.lower())
    if (
        month_number is None
        or len(parts) != 3
        or not (year.isdigit() and len(year) in (2, 4))
        or not all(part.isdigit() and len(part) <= 2 for part in (day, *parts))
    ):
        return None
    year_number = int(year)
    if len(year) == 2:
        # RFC 9110 moves a two-digit year more than 50 years ahead into the past; without a
        # clock the pivot is POSIX's 69.
        year_number += 1900 if year_number >= 69 else 2000
    try:
        hour, minute, second = map(int, parts)
        # RFC 9110 allows the leap second 60; the calendar does not.
        moment = datetime(year_number, month_number, int(day), hour, minute, min(second, 59))
    except ValueError:
        return None
    return timegm(moment.timetuple()) + (1 if second == 60 else 0)
