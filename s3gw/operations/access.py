"""What a principal may do: the one method that every authorization goes through.

The pipeline asks once, for the row's action; the operations that find more items in their request
(the source of a copy, the keys of DeleteObjects) ask again for each. Where a bucket has no policy
and the principal none that limits it, the answer needs no evaluation. Policies are compiled once
and kept by their text, so a changed policy is never judged by what it was.

What is allowed is so by the bucket and the key as they were read. The request's commit is guarded
by them; where it has to rest on a later reading, the same is asked again about that one
(`Access.require_still`): a write that is under way when a policy is closed ends with AccessDenied.
Then, too, it is asked whether the identity is still who it was: an access key that was disabled or
a policy that was detached while the request waited is seen before its commit, as far as this
process knows of it.

Some operations ask for more than their row says: writing tags needs `s3:PutObjectTagging` beside
`s3:PutObject`, and so on. Whoever may not list a bucket is not told which keys it lacks. Sources:
API Reference, "Permissions" of each operation; S3 User Guide, "Required permissions for Amazon S3
API operations".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from s3gw import errors, limits
from s3gw.auth.acl_policy import as_policy
from s3gw.auth.patterns import Pattern
from s3gw.auth.policy import (
    ANONYMOUS,
    Effect,
    Policy,
    Principal,
    Principals,
    RequestContext,
    Statement,
    by_unique_ids,
)
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, Decision, Permissions, Reason, decide
from s3gw.auth.policy_parse import parse_bucket_policy
from s3gw.auth.public_policy import is_public
from s3gw.buckets import acl, public_access
from s3gw.buckets.acl import Kind
from s3gw.identities.policy_principals import decoded
from s3gw.metadata.records import BucketRecord, ObjectRecord
from s3gw.objects.buckets import BucketCheck
from s3gw.objects.publish import Check, Target
from s3gw.operations.call import Call
from s3gw.operations.request_values import WRITES, Found, object_values, request_values

POLICY_DOCUMENT = "policy"
PRINCIPALS_DOCUMENT = "policy-principals"
NO_VALUES: Found = {}
# The account itself keeps these whatever a policy denies, so that nobody locks himself out.
NEVER_LOST = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})
OBJECT_READS = frozenset(
    {
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:GetObjectAcl",
        "s3:GetObjectVersionAcl",
        "s3:GetObjectAttributes",
        "s3:GetObjectVersionAttributes",
        "s3:GetObjectTagging",
        "s3:GetObjectVersionTagging",
    }
)
# Of operations that make objects: the header, and the action that it asks for too.
WRITE_HEADERS = {
    "x-amz-tagging": "s3:PutObjectTagging",
    "x-amz-acl": "s3:PutObjectAcl",
    "x-amz-grant-full-control": "s3:PutObjectAcl",
    "x-amz-grant-read": "s3:PutObjectAcl",
    "x-amz-grant-read-acp": "s3:PutObjectAcl",
    "x-amz-grant-write": "s3:PutObjectAcl",
    "x-amz-grant-write-acp": "s3:PutObjectAcl",
    "x-amz-object-lock-mode": "s3:PutObjectRetention",
    "x-amz-object-lock-legal-hold": "s3:PutObjectLegalHold",
}
# Whoever passes over GOVERNANCE, or makes a bucket with object lock, needs more than the action.
LOCK_HEADER = "x-amz-bucket-object-lock-enabled"
BYPASS_HEADER = "x-amz-bypass-governance-retention"
BYPASSING = frozenset({"DeleteObject", "PutObjectRetention"})
BYPASS = "s3:BypassGovernanceRetention"
LOCKED_BUCKET = ("s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning")
# Making a bucket with an access control list for others, or with ownership controls, does too.
OWNERSHIP_HEADER = "x-amz-object-ownership"
# Whoever is allowed this by his own policies is told why he is denied something.
EXPLAIN = "s3gw:ExplainAccess"
# A write with If-Match tells whether the object is as the writer thinks.
TELLING_WRITES = frozenset({"PutObject", "CopyObject", "CompleteMultipartUpload", "RenameObject"})
# So does a delete with a condition, unless it only asks whether there is an object.
TELLING_DELETES = frozenset({"x-amz-if-match-size", "x-amz-if-match-last-modified-time"})
# Uploads in parts are for somebody who can be told from others (S3 User Guide, "Multipart upload
# API and permissions"), so that nobody adds parts to what others began. That one may end the upload
# and list its parts, within its limits.
PARTS_WRITES = frozenset(
    {"CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"}
)
INITIATOR = Policy(
    "the initiator of an upload",
    (
        Statement(
            1,
            "",
            Effect.ALLOW,
            tuple(
                Pattern(action, variables=False, fold=str.lower)
                for action in ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
            ),
            (Pattern("*", variables=False),),
            Principals(everyone=True),
        ),
    ),
)
POLICIES_COMPILED_MAX = 1024


@dataclass(frozen=True, slots=True)
class Resource:
    """What an action is done to: a bucket, or one of its keys. `bucket` is None where there is
    none (yet). `found` says that the key was looked up: the version named, or else the visible one,
    is then `record`. `named` is the ARN of what is neither: an encryption key. `initiator_id`
    is the unique id of who began the upload that is asked about; `replaces` says that a write would
    replace what is not a version of the key."""

    bucket_name: str = ""
    bucket: BucketRecord | None = None
    key: str = ""
    found: bool = False
    record: ObjectRecord | None = None
    version_id: str | None = None
    named: str = ""
    initiator_id: str = ""
    replaces: bool = False

    @classmethod
    def of_target(cls, target: Target, version_id: str | None) -> Resource:
        """A key as read, of which the request names this version."""
        found = target.found
        record = found.record if found is not None else None
        return cls(target.bucket_name, target.bucket, target.key, True, record, version_id)

    @property
    def arn(self) -> str:
        if self.named:
            return self.named
        if not self.bucket_name:
            return "arn:aws:s3:::*"
        path = f"{self.bucket_name}/{self.key}" if self.key else self.bucket_name
        return f"arn:aws:s3:::{path}"


@lru_cache(maxsize=POLICIES_COMPILED_MAX)
def compiled(document: bytes, bucket_name: str, principals: bytes | None = None) -> Policy:
    """The policy of a stored document, with the `principals` that are stored beside it."""
    policy = parse_bucket_policy(document, bucket_name, limit=limits.BUCKET_POLICY_BYTES_MAX)
    return by_unique_ids(policy, decoded(principals))


@lru_cache(maxsize=POLICIES_COMPILED_MAX)
def stored_policy_is_public(document: bytes, bucket_name: str) -> bool:
    """Whether a stored document is a public policy."""
    return is_public(compiled(document, bucket_name))


class Access:
    """Answers what the principal of a call may do. `account` is the one that owns the buckets."""

    def __init__(self, account: str) -> None:
        self.account = account

    def require_row(self, call: Call, action: str, values: Found = NO_VALUES) -> None:
        """Authorize the action of the row, and what the request asks for beside it. `values` are
        the condition keys that its body has. Raises AccessDenied."""
        call.asked = (action, values)
        if call.principal.is_anonymous and call.operation in PARTS_WRITES:
            raise errors.AccessDenied(
                "Anonymous users cannot upload in parts. Please authenticate."
            )
        if self._plainly_allowed(call, call.bucket_record):
            return
        resource = self.resource_of(call)
        self.require(call, action, resource, values)
        for more in _further_actions(call):
            self.require(call, more, resource, values)

    def require_still(
        self, call: Call, bucket: BucketRecord, revision: int, target: Target | None = None
    ) -> bool:
        """Authorize again what `require_row` has allowed, unless it was decided on this reading of
        the bucket and, where it was about a key, of that `target`, and on the identity as it is
        known now. From here on the call is about what was read now. Returns whether that is
        another. Raises AccessDenied, InvalidAccessKeyId, InvalidToken."""
        other_identity = self._identify_again(call)
        before, now = call.object_target, target or call.object_target
        read_again = before is not None and now is not None and now.revision != before.revision
        if revision == call.bucket_revision and not read_again:
            if other_identity and call.asked is not None:
                self.require_row(call, *call.asked)
            return False
        call.bucket_record, call.bucket_revision = bucket, revision
        if before is not None and now is not None:
            call.object_target = dataclasses.replace(
                now, asked=before.asked, bucket=bucket, bucket_revision=revision
            )
        if call.asked is not None:
            self.require_row(call, *call.asked)
        return True

    def _identify_again(self, call: Call) -> bool:
        """Whether the identity that asks has others to speak for it, or another name, than the call
        knew; now it knows. Raises InvalidAccessKeyId, InvalidToken where nothing is left of it."""
        if call.identify_again is None:
            return False
        principal, permissions = call.identify_again()
        if principal is call.principal and permissions is call.permissions:
            return False  # as nearly always: identities are made anew only when one has changed
        changed = (principal, permissions) != (call.principal, call.permissions)
        call.principal, call.permissions = principal, permissions
        return changed

    def require_delete(
        self, call: Call, resource: Resource, values: Found = NO_VALUES, *, telling: bool = False
    ) -> None:
        """Authorize the removal of one of several keys or versions, of which `values` are the
        condition keys; `telling`: under a condition that tells how it is. Raises AccessDenied,
        InvalidAccessKeyId, InvalidToken."""
        self._identify_again(call)
        named = resource.version_id is not None
        delete = "s3:DeleteObjectVersion" if named else "s3:DeleteObject"
        self.require(call, delete, resource, values)
        if telling:
            self.require(call, "s3:GetObjectVersion" if named else "s3:GetObject", resource, values)
        if bypasses(call):
            self.require(call, BYPASS, resource)

    def resource_of(self, call: Call) -> Resource:
        """What the request's own path names."""
        version_id = call.query.get("versionId")
        if call.object_target is not None:
            return Resource.of_target(call.object_target, version_id)
        return Resource(
            call.bucket_name,
            call.bucket_record,
            call.key,
            version_id=version_id,
            initiator_id=call.initiator_id,
        )

    def require_owner(self, call: Call, header: str, owner: str) -> None:
        """`owner` (a canonical id) is who the header, if it is there, expects: given as account or
        as canonical id. Raises AccessDenied."""
        expected = call.headers.get(header)
        if expected is not None and expected not in (owner, self.account):
            raise errors.AccessDenied()

    def require(
        self, call: Call, action: str, resource: Resource, values: Found = NO_VALUES
    ) -> None:
        """Authorize one action on one resource; `values` as in `require_row`. Raises AccessDenied,
        which says why to the account itself and to whom its policies allow `s3gw:ExplainAccess`;
        what others may know of the policies of a bucket is not for this answer."""
        if self._plainly_allowed(call, resource.bucket):
            return
        context = self._context(call, action, resource, values)
        decision = self._decide(call, context, resource)
        missing = resource.found and resource.record is None and action in OBJECT_READS
        # What is not there has no list that could allow it to be read.
        unlisted = missing and decision.reason is Reason.NO_ALLOW and _lists(resource.bucket)
        if not (decision.allowed or unlisted):
            if explains_to(context, call.permissions):
                raise errors.AccessDenied(decision.explain(context))
            raise errors.AccessDenied()
        if missing:
            bucket = Resource(resource.bucket_name, resource.bucket)
            # A policy that lets list by prefix decides as it would on a listing of this key.
            asked: Found = {"s3:prefix": (resource.key,)}
            listing = self._context(call, "s3:ListBucket", bucket, asked)
            if not self._decide(call, listing, bucket).allowed:
                raise errors.AccessDenied()

    def require_replace(self, call: Call, record: ObjectRecord | None) -> None:
        """Authorize once more, where lists count, a write that one may allow for new keys alone, of
        a key whose visible version is `record` at its commit. Raises AccessDenied."""
        if record is not None and _lists(call.bucket_record):
            resource = Resource(call.bucket_name, call.bucket_record, call.key, True, record)
            self.require(call, "s3:PutObject", resource)

    def require_parts(self, call: Call, initiator_id: str) -> None:
        """The same of a write to an upload, which one may allow for own uploads alone: this one was
        begun by the identity of this unique id, "" for the account. Raises AccessDenied."""
        if initiator_id != call.principal.user_id and _lists(call.bucket_record):
            resource = Resource(call.bucket_name, call.bucket_record, call.key, replaces=True)
            self.require(call, "s3:PutObject", resource)

    def decision(self, call: Call, action: str, resource: Resource) -> Decision:
        """The decision, with what decided it."""
        return self._decide(call, self._context(call, action, resource), resource)

    def is_hopeless(self, call: Call) -> bool:
        """Nothing could be allowed: nobody known asks, and the bucket has no policy and no
        lists."""
        bucket = call.bucket_record
        return call.principal is ANONYMOUS and _document(bucket) is None and not _lists(bucket)

    def _plainly_allowed(self, call: Call, bucket: BucketRecord | None) -> bool:
        """The account itself asks, and nobody has set a policy that could deny it."""
        return (
            call.principal.is_root
            and call.permissions is NO_PERMISSIONS
            and _document(bucket) is None
        )

    def _decide(self, call: Call, context: RequestContext, resource: Resource) -> Decision:
        return self.judge(context, call.permissions, resource)

    def rests_on_lists(self, call: Call) -> bool:
        """Whether what the call was allowed is so by access control lists alone."""
        if call.asked is None or call.principal.is_root or not _lists(call.bucket_record):
            return False
        action, values = call.asked
        resource = self.resource_of(call)
        context = self._context(call, action, resource, values)
        return not self.judge(context, call.permissions, resource, lists=False).allowed

    def judge(
        self,
        context: RequestContext,
        permissions: Permissions,
        resource: Resource,
        *,
        lists: bool = True,
    ) -> Decision:
        """The decision on a request about the resource, whoever makes it, with what decided it;
        without `lists`, as it would be if access control lists allowed nothing."""
        who = context.principal
        if context.action in NEVER_LOST and who.is_root and _owns(who, resource.bucket):
            return Decision(True, Reason.ROOT)
        document = _document(resource.bucket)
        if document is not None and who.account != self.account:
            block = _block(resource.bucket)
            public = stored_policy_is_public(document, resource.bucket_name)
            if block.restrict_public_buckets and public:
                return Decision(False, Reason.PUBLIC_RESTRICTED)
        policies = resource_policies(resource, lists=lists)
        if resource.initiator_id and resource.initiator_id == who.user_id:
            policies.append(INITIATOR)
        return decide(context, permissions, policies)

    def _context(
        self, call: Call, action: str, resource: Resource, more: Found = NO_VALUES
    ) -> RequestContext:
        values = request_values(call, self.account)
        if resource.key:
            own = resource.key == call.key and resource.bucket_name == call.bucket_name
            values |= object_values(call, resource.record, resource.version_id, own=own)
        return RequestContext(call.principal, action, resource.arn, values | more)


def still_allowed(call: Call) -> Check:
    """The check of a commit whose caller may still do what the request was allowed."""

    def check(target: Target) -> None:
        call.access.require_still(call, target.bucket, target.bucket_revision, target)

    return check


def still_allowed_in_bucket(call: Call) -> BucketCheck:
    """The same for what is not about a version of a key."""

    def check(bucket: BucketRecord, revision: int) -> None:
        call.access.require_still(call, bucket, revision)

    return check


def _document(bucket: BucketRecord | None) -> bytes | None:
    return None if bucket is None else bucket.documents.get(POLICY_DOCUMENT)


def _lists(bucket: BucketRecord | None) -> bool:
    """Whether access control lists count."""
    return bucket is not None and acl.in_force(bucket.documents)


def _block(bucket: BucketRecord | None) -> public_access.PublicAccessBlock:
    document = None if bucket is None else bucket.documents.get(public_access.DOCUMENT)
    return public_access.stored(document)


def resource_policies(resource: Resource, *, lists: bool = True) -> list[Policy]:
    """What speaks about a resource: its bucket's policy and, where they count, the access control
    `lists` of bucket and object."""
    bucket, record = resource.bucket, resource.record
    found = []
    document = _document(bucket)
    if document is not None:
        principals = bucket.documents.get(PRINCIPALS_DOCUMENT) if bucket is not None else None
        found.append(compiled(document, resource.bucket_name, principals))
    if lists and bucket is not None and _lists(bucket):
        ignored = _block(bucket).ignore_public_acls
        kept = bucket.documents.get(acl.DOCUMENT, b"")
        replaces = record is not None or resource.replaces
        found.append(
            as_policy(kept, bucket.owner, Kind.BUCKET, ignore_public=ignored, replaces=replaces)
        )
        if record is not None:
            kept = record.description.acl
            found.append(as_policy(kept, record.owner, Kind.OBJECT, ignore_public=ignored))
    return found


def explains_to(context: RequestContext, permissions: Permissions) -> bool:
    """Whether the principal of a request is told what decided it: the account itself, and those
    whom their own policies allow it."""
    if context.principal.is_root:
        return True
    asked = RequestContext(context.principal, EXPLAIN, context.resource, context.values)
    return not context.principal.is_anonymous and decide(asked, permissions).allowed


def _owns(who: Principal, bucket: BucketRecord | None) -> bool:
    return bucket is not None and bucket.owner == who.id


def bypasses(call: Call) -> bool:
    """Whether the request asks to pass over GOVERNANCE."""
    return call.headers.get(BYPASS_HEADER, "").lower() == "true"


def _further_actions(call: Call) -> Iterator[str]:
    if call.operation in WRITES:
        yield from {action for header, action in WRITE_HEADERS.items() if header in call.headers}
    if call.operation in BYPASSING and bypasses(call):
        yield BYPASS
    if call.operation == "CreateBucket" and call.headers.get(LOCK_HEADER, "").lower() == "true":
        yield from LOCKED_BUCKET
    if call.operation == "CreateBucket":
        if OWNERSHIP_HEADER in call.headers:
            yield "s3:PutBucketOwnershipControls"
        canned = call.headers.get(acl.CANNED_HEADER, "private")
        if acl.asks_grants(call.headers) or canned != "private":
            yield "s3:PutBucketAcl"
    if call.operation in TELLING_WRITES and "if-match" in call.headers:
        yield "s3:GetObject"
    if call.operation == "DeleteObject" and (
        call.headers.get("if-match", "*").strip() != "*"
        or not TELLING_DELETES.isdisjoint(call.headers)
    ):
        yield "s3:GetObjectVersion" if "versionId" in call.query else "s3:GetObject"
    if call.operation == "GetObjectAttributes":
        yield "s3:GetObjectVersion" if "versionId" in call.query else "s3:GetObject"
