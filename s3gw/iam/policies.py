"""Managed policies: `CreatePolicy`, `CreatePolicyVersion`, …

One version of a policy is kept, the default one. `CreatePolicyVersion` with `SetAsDefault` replaces
it, which is what tools do; without, it is refused rather than forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from s3gw.iam import shapes
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.errors import NotImplementedAction
from s3gw.iam.pages import page
from s3gw.iam.tags import with_tags, without_tags
from s3gw.identities.documents import BUILT_IN
from s3gw.identities.errors import DeleteConflict, NoSuchEntity
from s3gw.identities.managed import arn_of, built_in
from s3gw.identities.names import check_tags
from s3gw.metadata.identity_records import (
    GroupRecord,
    ManagedPolicyRecord,
    RoleRecord,
    UserRecord,
)

Holder = UserRecord | GroupRecord | RoleRecord
ONE_VERSION = "Only the default version of a policy is kept: SetAsDefault must be true."


async def _holders(call: QueryCall) -> list[Holder]:
    """Everybody who can have a policy."""
    users, groups = await call.store.list_users(), await call.store.list_groups()
    return [*users, *groups, *await call.store.list_roles()]


def _bounded_by(holder: Holder, arn: str) -> bool:
    return not isinstance(holder, GroupRecord) and holder.boundary == arn


def _shown(record: ManagedPolicyRecord, holders: Iterable[Holder]) -> Result:
    arn, everybody = arn_of(record), list(holders)
    attachments = sum(arn in holder.attached for holder in everybody)
    return shapes.policy(record, attachments, sum(_bounded_by(h, arn) for h in everybody))


async def create_policy(call: QueryCall) -> Result:
    parameters = call.parameters
    record = await call.store.create_policy(
        parameters.text("PolicyName"),
        parameters.text("PolicyDocument"),
        path=parameters.optional("Path") or "/",
        description=parameters.optional("Description") or "",
        tags=parameters.tags(),
    )
    return {"Policy": _shown(record, ())}


async def get_policy(call: QueryCall) -> Result:
    record = await call.store.get_policy(call.parameters.text("PolicyArn"))
    return {"Policy": _shown(record, await _holders(call))}


async def delete_policy(call: QueryCall) -> None:
    await call.store.delete_policy(call.parameters.text("PolicyArn"))


async def list_policies(call: QueryCall) -> Result:
    parameters = call.parameters
    scope = parameters.optional("Scope") or "All"
    prefix = parameters.optional("PathPrefix") or "/"
    records: list[ManagedPolicyRecord] = []
    if scope != "AWS":
        records += await call.store.list_policies()
    if scope != "Local":
        records += map(built_in, BUILT_IN)
    holders = await _holders(call)
    usage = parameters.optional("PolicyUsageFilter")
    matching = []
    for record in records:
        shown = _shown(record, holders)
        attached, bounding = shown["AttachmentCount"], shown["PermissionsBoundaryUsageCount"]
        if not record.path.startswith(prefix):
            continue
        if parameters.flag("OnlyAttached") and not attached + bounding:
            continue
        if (usage == "PermissionsPolicy" and not attached) or (
            usage == "PermissionsBoundary" and not bounding
        ):
            continue
        matching.append({**shown, "Description": None, "Tags": None})
    found, more = page(call, matching, lambda policy: str(policy["PolicyName"]))
    return {"Policies": found, **more}


async def list_entities_for_policy(call: QueryCall) -> Result:
    parameters = call.parameters
    arn = parameters.text("PolicyArn")
    await call.store.get_policy(arn)
    prefix = parameters.optional("PathPrefix") or "/"
    usage = parameters.optional("PolicyUsageFilter")
    kind = parameters.optional("EntityFilter")

    def has(holder: Holder) -> bool:
        attached = usage != "PermissionsBoundary" and arn in holder.attached
        bounded = usage != "PermissionsPolicy" and _bounded_by(holder, arn)
        return holder.path.startswith(prefix) and (attached or bounded)

    named: list[tuple[str, str, str]] = []
    for holder in filter(has, await _holders(call)):
        match holder:
            case UserRecord():
                named.append(("User", holder.name, holder.user_id))
            case GroupRecord():
                named.append(("Group", holder.name, holder.group_id))
            case RoleRecord():
                named.append(("Role", holder.name, holder.role_id))
    found, more = page(
        call,
        [each for each in named if kind in (None, each[0])],
        lambda each: f"{each[0]} {each[1]}",
    )
    lists: Result = {
        f"Policy{kind}s": [
            {f"{kind}Name": name, f"{kind}Id": unique_id}
            for what, name, unique_id in found
            if what == kind
        ]
        for kind in ("Group", "User", "Role")
    }
    return {**lists, **more}


async def create_policy_version(call: QueryCall) -> Result:
    if not call.parameters.flag("SetAsDefault"):
        raise NotImplementedAction(ONE_VERSION)
    arn, document = call.parameters.text("PolicyArn"), call.parameters.text("PolicyDocument")
    record = await call.store.update_policy(arn, document)
    return {"PolicyVersion": shapes.policy_version(record, whole=False)}


async def _version(call: QueryCall) -> ManagedPolicyRecord:
    """The policy, if the version that the call names is the one that is kept."""
    record = await call.store.get_policy(call.parameters.text("PolicyArn"))
    version = call.parameters.text("VersionId")
    if version != shapes.version_id(record):
        raise NoSuchEntity(
            f"Policy {arn_of(record)} version {version} does not exist or is not attachable."
        )
    return record


async def get_policy_version(call: QueryCall) -> Result:
    return {"PolicyVersion": shapes.policy_version(await _version(call), whole=True)}


async def list_policy_versions(call: QueryCall) -> Result:
    record = await call.store.get_policy(call.parameters.text("PolicyArn"))
    return {"Versions": [shapes.policy_version(record, whole=False)], "IsTruncated": False}


async def set_default_policy_version(call: QueryCall) -> None:
    await _version(call)  # it is already


async def delete_policy_version(call: QueryCall) -> None:
    await _version(call)
    raise DeleteConflict("Cannot delete the default version of a policy.")


async def tag_policy(call: QueryCall) -> None:
    tags = call.parameters.tags()
    await call.store.change_policy(
        call.parameters.text("PolicyArn"),
        lambda before: replace(before, tags=check_tags(with_tags(before.tags, tags))),
    )


async def untag_policy(call: QueryCall) -> None:
    gone = call.parameters.texts("TagKeys")
    await call.store.change_policy(
        call.parameters.text("PolicyArn"),
        lambda before: replace(before, tags=without_tags(before.tags, gone)),
    )


async def list_policy_tags(call: QueryCall) -> Result:
    tags = (await call.store.get_policy(call.parameters.text("PolicyArn"))).tags
    found, more = page(call, list(tags), str)
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in found], **more}
