"""Where a bucket's access log goes: the stored BucketLoggingStatus, and the names of log objects.

    <prefix>YYYY-mm-DD-HH-MM-SS-<unique>                                            simple
    <prefix><account>/<region>/<bucket>/YYYY/mm/DD/YYYY-mm-DD-HH-MM-SS-<unique>     partitioned

Times are those of the delivery; partitioned by the time of events, those of the events' day, with
00 for the time of day. Source: Amazon S3 User Guide, "Log object key format".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from time import gmtime, strftime

from s3gw.buckets.settings import LOGGING

DAY_SECONDS = 24 * 3600
DESTINATIONS_KEPT_MAX = 1024


@dataclass(frozen=True, slots=True)
class Destination:
    """The bucket that gets the log objects, and how these are called."""

    bucket: str
    prefix: str
    partitioned: bool = False
    by_event: bool = False

    def day(self, seconds: float) -> int:
        """What may not be mixed in one object: the day of events at Unix time `seconds`, 0 where
        their time does not matter."""
        return int(seconds // DAY_SECONDS) if self.by_event else 0

    def object_name(
        self, account: str, region: str, source: str, seconds: float, unique: str
    ) -> str:
        """The key of a log object of the bucket `source`. `seconds` is the time of the delivery, or
        one of the day of its events."""
        if self.by_event:
            seconds -= seconds % DAY_SECONDS
        when = gmtime(seconds)
        name = f"{strftime('%Y-%m-%d-%H-%M-%S', when)}-{unique}"
        if not self.partitioned:
            return f"{self.prefix}{name}"
        return f"{self.prefix}{account}/{region}/{source}/{strftime('%Y/%m/%d', when)}/{name}"


@lru_cache(maxsize=DESTINATIONS_KEPT_MAX)
def destination_of(document: bytes) -> Destination | None:
    """What a stored document says; None for no log."""
    enabled = LOGGING.parse(document).get("LoggingEnabled")
    if enabled is None:
        return None
    form = enabled.get("TargetObjectKeyFormat", {})
    partitioned = form.get("PartitionedPrefix")
    return Destination(
        enabled["TargetBucket"],
        enabled["TargetPrefix"],
        partitioned is not None,
        (partitioned or {}).get("PartitionDateSource") == "EventTime",
    )
