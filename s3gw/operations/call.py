"""What an operation gets and gives: the seam between the server edge and the operations.

An operation is `async def name(call: Call) -> Reply`. By then the request is resolved,
authenticated and authorized, and its bucket is loaded. Operations raise S3Error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from nodes.protocol import Buffer
from s3gw.auth.policy import ANONYMOUS as ANONYMOUS
from s3gw.auth.policy import Principal as Principal
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, Permissions
from s3gw.identities.root import account_owner
from s3gw.metadata.records import BucketRecord, Checksums
from s3gw.objects.publish import Target
from s3gw.objects.storage import Storage
from s3gw.wire.checksums import Requested

if TYPE_CHECKING:
    from s3gw.operations.access import Access

XML_TYPE = ("Content-Type", "application/xml")


class Body(Protocol):
    """The request's body, framing removed (see s3gw.objects.ingest.Payload)."""

    @property
    def algorithms(self) -> Collection[str]:
        """Names of the digests to compute besides MD5 ("SHA256" for a signed payload)."""
        ...

    requested: Requested

    @property
    def size(self) -> int | None:
        """The payload's length if the client announced it."""
        ...

    def require(self, algorithm: str) -> None:
        """Compute this checksum too, and store it."""
        ...

    def __aiter__(self) -> AsyncIterator[Buffer]: ...

    def verify(self, digests: Mapping[str, bytes]) -> Checksums: ...

    async def read(self, limit: int) -> bytes:
        """The whole body, verified. Raises MaxMessageLengthExceeded over `limit` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What operations need to know of the configuration."""

    region: str
    profile: str
    public_address: str
    customer_keys_over_http: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from and how it was signed. `now` is Unix seconds; `address` is the
    peer's; `signature` is "AWS4-HMAC-SHA256", "AWS" (Version 2) or "", and `timestamp` that of
    Version 4."""

    now: float
    address: str
    secure: bool
    signature: str = ""
    presigned: bool = False
    timestamp: bytes = b""


@dataclass(slots=True)
class Call:
    """One request. `headers` by lower-case name. `bucket` is the record of the bucket named, as it
    was at `bucket_revision`; `target` also has the object's, when the operation is about the
    visible version of a key. `access` answers what else the principal may do than what the row
    says; `asked` is the action of the row as it was asked for, with the values of the body.
    `identify_again` says who asks, and by which policies, as it is known by then; None for nobody.
    `fields` are those of a form, by lower-case name; `initiator_id` is the unique id of who began
    the upload that is asked about, where that counts, and `upload_values` are the condition keys
    that the upload was begun with and its parts cannot have."""

    operation: str
    bucket_name: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    principal: Principal
    signed: bool
    storage: Storage
    settings: Settings
    request_id: str
    body: Body
    access: Access
    origin: Origin
    permissions: Permissions = NO_PERMISSIONS
    bucket_record: BucketRecord | None = None
    bucket_revision: int = 0
    object_target: Target | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    asked: tuple[str, dict[str, tuple[str, ...]]] | None = None
    identify_again: Callable[[], tuple[Principal, Permissions]] | None = None
    initiator_id: str = ""
    upload_values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def bucket(self) -> BucketRecord:
        assert self.bucket_record is not None
        return self.bucket_record

    @property
    def owner(self) -> Principal:
        """Who owns the bucket and all that is in it, whoever writes it: an account."""
        return account_owner(self.bucket.owner)

    @property
    def target(self) -> Target:
        assert self.object_target is not None
        return self.object_target


@dataclass(frozen=True, slots=True)
class Batched:
    """One object of a request about many, as the access log tells it. `size` is -1 where nothing
    was there, `error` the code of an error or ""."""

    key: str
    version_id: str
    status: int
    error: str
    size: int


@dataclass(slots=True)
class Reply:
    """An answer. With `stream`, `length` bytes follow as lists of buffers; else `body`. `error` is
    the code of the error that it is, if it is one; `batch` is what became of each object of a
    request about many."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    stream: AsyncIterator[list[Buffer]] | None = None
    length: int = 0
    error: str = ""
    batch: Sequence[Batched] = ()


def xml_reply(document: bytes, *, status: int = 200) -> Reply:
    """A reply with an XML document."""
    return Reply(status, [XML_TYPE], document)
