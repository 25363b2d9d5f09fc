"""CreateBucket."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.buckets import acl
from s3gw.buckets.acl import Kind
from s3gw.buckets.names import check_new
from s3gw.cluster.policies import PLACEMENTS
from s3gw.cluster.topology import UnknownProfile
from s3gw.objects import buckets
from s3gw.operations.access import LOCK_HEADER, OWNERSHIP_HEADER
from s3gw.operations.call import Call, Reply
from s3gw.wire import xml
from s3gw.wire.tagging import check_tags

US_EAST_1 = "us-east-1"
PROFILE_HEADER = "x-s3gw-profile"
PLACEMENT_HEADER = "x-s3gw-placement"


async def create_bucket(call: Call) -> Reply:
    """Make a bucket owned by the caller; in us-east-1 an own bucket again is no error."""
    check_new(call.bucket_name)
    documents = _ownership(call)
    object_lock = _object_lock(call)
    tags = await _read_configuration(call)
    existing = await buckets.create_bucket(
        call.storage,
        call.bucket_name,
        owner=call.principal.id,
        region=call.settings.region,
        profile=await _profile(call),
        object_lock=object_lock,
        tags=tags,
        placement=_placement(call),
        documents=documents,
    )
    if existing is not None:
        if existing.owner != call.principal.id:
            raise errors.BucketAlreadyExists(BucketName=call.bucket_name)
        as_asked = documents.items() <= existing.documents.items()
        if call.settings.region != US_EAST_1 or not as_asked:
            raise errors.BucketAlreadyOwnedByYou(BucketName=call.bucket_name)
    return Reply(
        headers=[
            ("Location", f"/{call.bucket_name}"),
            ("x-amz-bucket-arn", f"arn:aws:s3:::{call.bucket_name}"),
        ]
    )


def _object_lock(call: Call) -> bool:
    """`x-amz-bucket-object-lock-enabled`. Raises InvalidArgument: who mistypes it must not take
    what the bucket gets for kept."""
    text = call.headers.get(LOCK_HEADER, "")
    if text.lower() not in ("", "true", "false"):
        raise errors.InvalidArgument(
            "The value must be true or false.", ArgumentName=LOCK_HEADER, ArgumentValue=text
        )
    return text.lower() == "true"


def _ownership(call: Call) -> dict[str, bytes]:
    """The documents that `x-amz-object-ownership` and the headers of access control lists make.
    Raises InvalidArgument, InvalidBucketAclWithObjectOwnership for a list for others where lists
    are disabled, and as `of_headers`."""
    documents: dict[str, bytes] = {}
    ownership = call.headers.get(OWNERSHIP_HEADER)
    if ownership is not None:
        if ownership not in acl.OWNERSHIPS:
            raise errors.InvalidArgument(
                f"Invalid {OWNERSHIP_HEADER} header: {ownership}",
                ArgumentName=OWNERSHIP_HEADER,
                ArgumentValue=ownership,
            )
        documents[acl.OWNERSHIP_DOCUMENT] = ownership.encode()
    if acl.asks_grants(call.headers) and not acl.in_force(documents):
        raise errors.InvalidBucketAclWithObjectOwnership()
    owner = call.principal.id
    asked = acl.of_headers(call.headers, owner, Kind.BUCKET)
    kept = b"" if asked is None else acl.to_store(asked, owner)
    if kept:
        if not acl.in_force(documents):
            raise errors.InvalidBucketAclWithObjectOwnership()
        documents[acl.DOCUMENT] = kept
    return documents


async def _profile(call: Call) -> str:
    """The profile of `x-s3gw-profile`, or the default one. Raises InvalidArgument."""
    name = call.headers.get(PROFILE_HEADER)
    if name is None:
        return call.settings.profile
    topology = call.storage.blobs.topology
    try:
        await topology.know(name)
    except UnknownProfile:
        found = False
    else:
        found = bool(topology.profile(name).companion)
    if not found:
        raise errors.InvalidArgument(
            "There is no storage profile of this name.",
            ArgumentName=PROFILE_HEADER,
            ArgumentValue=name,
        )
    return name


def _placement(call: Call) -> str:
    """The placement policy of `x-s3gw-placement`. Raises InvalidArgument."""
    placement = call.headers.get(PLACEMENT_HEADER, "")
    if placement and placement not in PLACEMENTS:
        raise errors.InvalidArgument(
            f"The placement policies are {', '.join(PLACEMENTS)}.",
            ArgumentName=PLACEMENT_HEADER,
            ArgumentValue=placement,
        )
    return placement


async def _read_configuration(call: Call) -> dict[str, str]:
    """The tags in the body, whose region, if any, must be this store's. Raises
    IllegalLocationConstraintException, InvalidTag, BadRequest."""
    body = await call.body.read(limits.XML_SMALL_BYTES_MAX)
    if not body.strip():
        return {}
    document = await xml.parse_off_loop(
        body, limit=limits.XML_SMALL_BYTES_MAX, root="CreateBucketConfiguration"
    )
    tags = xml.children(xml.child(document, "Tags") or {}, "Tag")
    location = xml.optional_text(document, "LocationConstraint")
    if location in (None, "", call.settings.region):
        return check_tags(
            ((xml.text(tag, "Key"), xml.text(tag, "Value")) for tag in tags),
            limits.BUCKET_TAGS_MAX,
            whose="Bucket",
        )
    raise errors.IllegalLocationConstraintException(
        f"The {location} location constraint is incompatible for the region specific endpoint "
        "this request was sent to."
    )
