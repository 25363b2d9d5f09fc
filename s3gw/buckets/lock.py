"""Object lock: what a bucket's default retention means, and what keeps a version.

A version is kept by a legal hold, for as long as it is on, and by retention until a date. In mode
GOVERNANCE whoever has the permission may pass over it (`x-amz-bypass-governance-retention`); in
mode COMPLIANCE nobody may, and it can only be prolonged (Amazon S3 User Guide, "Object Lock").
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

import msgspec

from s3gw.errors import AccessDenied

GOVERNANCE, COMPLIANCE = "GOVERNANCE", "COMPLIANCE"
MODES = (GOVERNANCE, COMPLIANCE)
DOCUMENT = "object-lock"
"""The name of the default retention among a bucket's documents."""
DAYS_MAX = 36_500
YEARS_MAX = 100


class DefaultRetention(msgspec.Struct, array_like=True, frozen=True):
    """What a new version of a bucket gets unless its request says otherwise: `days` or `years`,
    the other one 0."""

    mode: str
    days: int = 0
    years: int = 0

    def until_ms(self, now_ms: int) -> int:
        """The end of the retention of a version made now. A year ends on the same date."""
        now = datetime.fromtimestamp(now_ms // 1000, UTC)
        year = now.year + self.years
        day = min(now.day, calendar.monthrange(year, now.month)[1])
        return int((now.replace(year=year, day=day) + timedelta(days=self.days)).timestamp()) * 1000


def encode_default(retention: DefaultRetention) -> bytes:
    """As it is kept in the bucket's record."""
    return msgspec.msgpack.encode(retention)


def decode_default(document: bytes) -> DefaultRetention:
    """Read what `encode_default` made."""
    return msgspec.msgpack.decode(document, type=DefaultRetention)


def is_kept(
    mode: str, until_ms: int, *, legal_hold: bool, now_ms: int, bypass: bool = False
) -> bool:
    """Whether a version may not be removed now. `bypass`: the request may and wants to pass over
    GOVERNANCE."""
    kept = until_ms > now_ms and (mode == COMPLIANCE or (mode == GOVERNANCE and not bypass))
    return legal_hold or kept


def check_removal(mode: str, until_ms: int, *, legal_hold: bool, now_ms: int, bypass: bool) -> None:
    """Whether a version may be removed now, as `is_kept` says. Raises AccessDenied."""
    if is_kept(mode, until_ms, legal_hold=legal_hold, now_ms=now_ms, bypass=bypass):
        raise AccessDenied("Access Denied because object protected by object lock.")


def check_change(
    mode: str, until_ms: int, *, new_mode: str, new_until_ms: int, now_ms: int, bypass: bool
) -> None:
    """Whether retention may become another one ("" and 0: none). Raises AccessDenied."""
    weaker = new_mode != mode or new_until_ms < until_ms
    if weaker and until_ms > now_ms and (mode == COMPLIANCE or (mode == GOVERNANCE and not bypass)):
        raise AccessDenied("Access Denied because object protected by object lock.")
