"""Bucket naming rules.

Sources: Amazon S3 User Guide, "General purpose bucket naming rules"; AWS CloudTrail User Guide,
"Amazon S3 bucket naming requirements" (no hyphen beside a period, as in host names: SDKs refuse
such buckets before they ask).
"""

from __future__ import annotations

from s3gw.errors import InvalidBucketName

NAME_CHARACTERS_MIN = 3
NAME_CHARACTERS_MAX = 63

_DIGITS = b"0123456789"
_LETTERS_AND_DIGITS = b"abcdefghijklmnopqrstuvwxyz" + _DIGITS
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_NO_LABELS = (".-", "-.")


def is_well_formed(name: bytes) -> bool:
    """Whether a bucket could have this name: length, characters, dots, not an IPv4 address."""
    return (
        NAME_CHARACTERS_MIN <= len(name) <= NAME_CHARACTERS_MAX
        and not name.translate(None, _LETTERS_AND_DIGITS + b".-")
        and name[0] in _LETTERS_AND_DIGITS
        and name[-1] in _LETTERS_AND_DIGITS
        and b".." not in name
        and not (name.count(b".") == 3 and not name.translate(None, _DIGITS + b"."))
    )


def check_new(name: str) -> None:
    """Refuses a name that a new bucket may not have: reserved ones, and what is no host name."""
    if (
        not is_well_formed(name.encode("utf-8", "surrogatepass"))
        or name.startswith(_RESERVED_PREFIXES)
        or name.endswith(_RESERVED_SUFFIXES)
        or any(part in name for part in _NO_LABELS)
    ):
        raise InvalidBucketName(BucketName=name)
