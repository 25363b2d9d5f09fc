"""Access control lists: which permissions a bucket or an object gives to whom.

A list is a tuple of grants. A grantee is a canonical user id, or one of Amazon's groups by its URI.
It is read from the three forms that S3 knows (a canned name, `x-amz-grant-*` headers, an
AccessControlPolicy document) and rendered as that document. What a list allows is the business of
s3gw.auth.acl_policy.

Lists count in buckets whose ownership controls say BucketOwnerPreferred or ObjectWriter. Elsewhere
they are disabled (BucketOwnerEnforced, the default): a list that says more than that the owner has
full control is refused, one kept from before is ignored, and comes back when lists are enabled.

A store is one account, so the owner of a bucket owns what is in it, also what anonymous callers
write: nobody cannot own. Both settings that enable lists therefore say the same here.

Sources: S3 User Guide, "Access control list (ACL) overview", "Controlling ownership of objects and
disabling ACLs for your bucket"; API Reference, PutBucketAcl, PutObjectAcl.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache

import msgspec

from s3gw import errors
from s3gw.errors import InvalidArgument, InvalidRequest, MalformedACLError
from s3gw.wire import xml
from s3gw.wire.xml import SCHEMA_INSTANCE, Node, Writer

DOCUMENT = "acl"
ROOT = "AccessControlPolicy"
OWNERSHIP_DOCUMENT = "ownershipControls"
ENFORCED, PREFERRED, WRITER = "BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"
OWNERSHIPS = (ENFORCED, PREFERRED, WRITER)

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED_USERS = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOG_DELIVERY = "http://acs.amazonaws.com/groups/s3/LogDelivery"
GROUPS = (ALL_USERS, AUTHENTICATED_USERS, LOG_DELIVERY)
PUBLIC_GROUPS = frozenset({ALL_USERS, AUTHENTICATED_USERS})
EC2 = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c"
"""Amazon EC2, which `aws-exec-read` names; nobody has this id here."""

FULL_CONTROL, READ, WRITE, READ_ACP, WRITE_ACP = (
    "FULL_CONTROL",
    "READ",
    "WRITE",
    "READ_ACP",
    "WRITE_ACP",
)
PERMISSIONS = (FULL_CONTROL, READ, WRITE, READ_ACP, WRITE_ACP)

CANNED_HEADER = "x-amz-acl"
GRANT_HEADERS = {
    "x-amz-grant-full-control": FULL_CONTROL,
    "x-amz-grant-read": READ,
    "x-amz-grant-read-acp": READ_ACP,
    "x-amz-grant-write": WRITE,
    "x-amz-grant-write-acp": WRITE_ACP,
}
HEADERS = frozenset({CANNED_HEADER, *GRANT_HEADERS})
# What each canned list grants beside the owner's full control.
CANNED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "private": (),
    "public-read": ((ALL_USERS, READ),),
    "public-read-write": ((ALL_USERS, READ), (ALL_USERS, WRITE)),
    "authenticated-read": ((AUTHENTICATED_USERS, READ),),
    "aws-exec-read": ((EC2, READ),),
    "bucket-owner-read": (),
    "bucket-owner-full-control": (),
    "log-delivery-write": ((LOG_DELIVERY, WRITE), (LOG_DELIVERY, READ_ACP)),
}
BUCKETS_ONLY = frozenset({"log-delivery-write"})
GRANTS_MAX = 100
_GRANTEE = re.compile(r'\s*(id|uri|emailAddress)\s*=\s*(?:"([^"]*)"|([^",\s]+))\s*', re.IGNORECASE)


class Kind(Enum):
    """What a list is of."""

    BUCKET = "bucket"
    OBJECT = "object"


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """One permission for one grantee: a canonical id or the URI of a group."""

    grantee: str
    permission: str

    @property
    def public(self) -> bool:
        """Whether everybody, or everybody who signs, is granted something."""
        return self.grantee in PUBLIC_GROUPS


Acl = tuple[Grant, ...]

_decoder = msgspec.json.Decoder(Acl)


def in_force(documents: Mapping[str, bytes]) -> bool:
    """Whether lists count in a bucket with these documents."""
    ownership = documents.get(OWNERSHIP_DOCUMENT)
    return ownership is not None and ownership != ENFORCED.encode()


def asks_grants(headers: Mapping[str, str]) -> bool:
    """Whether headers grant something by name."""
    return not GRANT_HEADERS.keys().isdisjoint(headers)


def owner_alone(owner: str) -> Acl:
    """The list of a resource whose owner alone may do everything."""
    return (Grant(owner, FULL_CONTROL),)


def is_public(acl: Acl) -> bool:
    """Whether a list is public, as the public access block means it."""
    return any(grant.public for grant in acl)


@lru_cache(maxsize=1024)
def stored(document: bytes, owner: str) -> Acl:
    """The list of a stored document; an empty one is the owner's alone."""
    return _decoder.decode(document) if document else owner_alone(owner)


def to_store(acl: Acl, owner: str) -> bytes:
    """The document to store."""
    return b"" if acl == owner_alone(owner) else msgspec.json.encode(acl)


def of_headers(headers: Mapping[str, str], owner: str, kind: Kind) -> Acl | None:
    """The list that headers ask for; None when they ask for none.

    Raises InvalidArgument, InvalidRequest, UnresolvableGrantByEmailAddress.
    """
    if HEADERS.isdisjoint(headers):
        return None
    canned = headers.get(CANNED_HEADER)
    granting = [name for name in GRANT_HEADERS if name in headers]
    if canned is None:
        return _granted(headers, granting, owner)
    if granting:
        raise InvalidRequest("Specifying both Canned ACLs and Header Grants is not allowed")
    if canned not in CANNED or (kind is Kind.OBJECT and canned in BUCKETS_ONLY):
        raise InvalidArgument(ArgumentName=CANNED_HEADER, ArgumentValue=canned)
    return (*owner_alone(owner), *(Grant(*pair) for pair in CANNED[canned]))


def _granted(headers: Mapping[str, str], names: list[str], owner: str) -> Acl:
    grants = []
    for name in names:
        text = headers[name]
        position = 0
        while True:
            found = _GRANTEE.match(text, position)
            if found is None or (found.end() < len(text) and text[found.end()] != ","):
                raise InvalidArgument(
                    "Argument format not recognized", ArgumentName=name, ArgumentValue=text
                )
            value = found[3] if found[2] is None else found[2]
            grantee = _grantee(found[1].lower(), value, owner)
            grants.append(Grant(grantee, GRANT_HEADERS[name]))
            if found.end() == len(text):
                break
            position = found.end() + 1
    return _checked(grants)


def _grantee(how: str, value: str, owner: str) -> str:
    """The grantee that is named by `id`, `uri` or `emailaddress`."""
    if how == "uri":
        if value not in GROUPS:
            raise InvalidArgument("Invalid group uri", ArgumentName="uri", ArgumentValue=value)
        return value
    if how == "emailaddress":
        raise errors.UnresolvableGrantByEmailAddress(
            "The e-mail address you provided does not match any account on record.",
            EmailAddress=value,
        )
    if value not in (owner, EC2):
        raise InvalidArgument("Invalid id", ArgumentName="CanonicalUser/ID", ArgumentValue=value)
    return value


def _checked(grants: list[Grant]) -> Acl:
    if len(grants) > GRANTS_MAX:
        raise MalformedACLError(f"An access control list has at most {GRANTS_MAX} grants.")
    return tuple(dict.fromkeys(grants))


def of_document(body: bytes, owner: str, *, limit: int) -> Acl:
    """The list of an AccessControlPolicy document.

    Raises MalformedXML, MalformedACLError, InvalidArgument, UnresolvableGrantByEmailAddress, and
    AccessDenied for one that names another owner.
    """
    document = xml.parse(body, limit=limit, root=ROOT)
    named = xml.child(document, "Owner")
    listed = xml.child(document, "AccessControlList")
    owner_named = None if named is None else xml.optional_text(named, "ID")
    if owner_named is None or listed is None:
        raise MalformedACLError
    if owner_named != owner:
        raise errors.AccessDenied("The owner of a bucket or an object cannot be changed.")
    grants = []
    for node in xml.children(listed, "Grant"):
        permission = xml.optional_text(node, "Permission")
        grantee = xml.child(node, "Grantee")
        if permission not in PERMISSIONS or grantee is None:
            raise MalformedACLError
        grants.append(Grant(_named(grantee, owner), permission))
    return _checked(grants)


def _named(grantee: Node, owner: str) -> str:
    match grantee.get("@type"):
        case "CanonicalUser":
            how, element = "id", "ID"
        case "Group":
            how, element = "uri", "URI"
        case "AmazonCustomerByEmail":
            how, element = "emailaddress", "EmailAddress"
        case _:
            raise MalformedACLError
    value = xml.optional_text(grantee, element)
    if value is None:
        raise MalformedACLError
    return _grantee(how, value.strip(xml.WHITESPACE), owner)


def render(acl: Acl, owner: str, owner_name: str) -> bytes:
    """The AccessControlPolicy document; `owner_name` is the owner's as listings show it.

    DisplayName, which Amazon stopped sending in 2025, is kept for s3cmd, which prints it.
    """
    document = Writer(ROOT)
    document.open("Owner")
    _write_user(document, owner, owner_name)
    document.close("Owner")
    document.open("AccessControlList")
    for grant in acl:
        group = grant.grantee in GROUPS
        kind = "Group" if group else "CanonicalUser"
        document.open("Grant")
        document.raw(f'<Grantee xmlns:xsi="{SCHEMA_INSTANCE}" xsi:type="{kind}">')
        if group:
            document.element("URI", grant.grantee)
        else:
            name = owner_name if grant.grantee == owner else grant.grantee
            _write_user(document, grant.grantee, name)
        document.close("Grantee")
        document.element("Permission", grant.permission)
        document.close("Grant")
    document.close("AccessControlList")
    return document.finish()


def _write_user(document: Writer, user_id: str, name: str) -> None:
    document.element("ID", user_id)
    document.element("DisplayName", name)
