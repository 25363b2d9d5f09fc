"""A line of a server access log, as Amazon S3 writes it.

Fields are separated by spaces; one that has no value is `-`. Nothing that a client sends can end a
field or a line: the key is URL-encoded, and in fields between quotes, quotes, control characters
and what is not ASCII are percent-encoded. What would let a reader of the log act as the client
(signatures, session tokens, customers' keys in presigned URLs) is masked, in the referrer too.

Source: Amazon S3 User Guide, "Amazon S3 server access log format".
"""

from __future__ import annotations

from dataclasses import dataclass
from time import gmtime
from urllib.parse import quote, unquote

from s3gw.limits import KEY_BYTES_MAX
from s3gw.wire.dates import MONTHS

NONE = "-"
MASK = "***"
# In a parameter's name, lower case: its value is a secret.
SECRET_PARTS = ("signature", "security-token", "customer-key")
HEADER_CHARACTERS_MAX = 4096
# Printable ASCII but for the quote, which ends a field, and the backslash, which some readers take
# for an escape.
PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"\\')


@dataclass(frozen=True, slots=True)
class Entry:
    """A request. `seconds` is Unix time of its arrival; texts are "" and numbers -1 where there is
    nothing to say. Times in milliseconds. `by_list`: an access control list alone allowed it. One
    object of a request about many has no `request_uri`, and nothing else that its client said."""

    owner: str
    bucket: str
    seconds: float
    address: str
    requester: str
    request_id: str
    operation: str
    key: str
    request_uri: str
    status: int
    error: str
    bytes_sent: int
    object_size: int
    total_ms: int
    turnaround_ms: int
    referrer: str
    user_agent: str
    version_id: str
    host_id: str
    signature: str
    authentication: str
    host: str
    cipher: str = ""
    tls: str = ""
    by_list: bool = False


def access_line(entry: Entry) -> bytes:
    """The line, with its end."""
    fields = (
        entry.owner or NONE,
        entry.bucket or NONE,
        f"[{log_time(entry.seconds)}]",
        _word(entry.address),
        _word(entry.requester),
        _word(entry.request_id),
        entry.operation,
        # Of the keys that DeleteObjects refuses, one may be as long as its body.
        quote(entry.key[:KEY_BYTES_MAX], safe="/") or NONE,
        _quoted(masked(entry.request_uri)) if entry.request_uri else NONE,
        str(entry.status),
        _word(entry.error),
        _number(entry.bytes_sent or -1),
        _number(entry.object_size),
        _number(entry.total_ms),
        _number(entry.turnaround_ms),
        _quoted(masked(entry.referrer)) if entry.request_uri else NONE,
        _quoted(entry.user_agent) if entry.request_uri else NONE,
        _word(entry.version_id),
        _word(entry.host_id),
        _word(entry.signature),
        _word(entry.cipher),
        _word(entry.authentication),
        _word(entry.host),
        _word(entry.tls),
        NONE,  # access point
        "Yes" if entry.by_list else NONE,
    )
    return (" ".join(fields) + "\n").encode("ascii")


def log_time(seconds: float) -> str:
    """`06/Feb/2019:00:00:38 +0000`."""
    t = gmtime(seconds)
    return (
        f"{t.tm_mday:02d}/{MONTHS[t.tm_mon - 1]}/{t.tm_year:04d}:"
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"
    )


def masked(text: str) -> str:
    """A request line or URL without the values that are secrets.

    >>> masked("GET /b/k?X-Amz-Signature=abc&versionId=1 HTTP/1.1")
    'GET /b/k?X-Amz-Signature=***&versionId=1 HTTP/1.1'
    """
    path, mark, query = text.partition("?")
    if not mark:
        return text
    end = ""
    if " " in query:
        query, space, rest = query.rpartition(" ")
        end = space + rest
    return f"{path}?{'&'.join(map(_masked_parameter, query.split('&')))}{end}"


def _masked_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    plain = unquote(name.replace("+", " ")).lower()
    secret = equals and any(part in plain for part in SECRET_PARTS)
    return f"{name}={MASK}" if secret else parameter


def _word(text: str) -> str:
    return _escaped(text, PLAIN.replace(" ", "")) or NONE


def _quoted(text: str) -> str:
    return f'"{_escaped(text, PLAIN) or NONE}"'


def _escaped(text: str, safe: str) -> str:
    """Each character is a byte of what was sent."""
    cut = text[:HEADER_CHARACTERS_MAX]
    return quote(cut, safe=safe, encoding="latin-1", errors="replace")


def _number(value: int) -> str:
    return str(value) if value >= 0 else NONE
