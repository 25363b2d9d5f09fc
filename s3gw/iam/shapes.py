"""Records as the API shows them."""

from __future__ import annotations

from urllib.parse import quote

from s3gw.iam.documents import Result
from s3gw.identities import names
from s3gw.identities.managed import arn_of
from s3gw.metadata.identity_records import (
    AccessKeyRecord,
    GroupRecord,
    ManagedPolicyRecord,
    RoleRecord,
    UserRecord,
)
from s3gw.wire.dates import iso8601_seconds


def date(milliseconds: int) -> str:
    """A time as the protocol writes it."""
    return iso8601_seconds(milliseconds / 1000)


def document(text: str) -> str:
    """A policy document as the API shows it: percent-encoded (RFC 3986)."""
    return quote(text, safe="")


def tags(found: dict[str, str]) -> list[Result] | None:
    """Tags, left out where there are none."""
    return [{"Key": name, "Value": value} for name, value in found.items()] or None


def boundary(arn: str) -> Result | None:
    """A permissions boundary, left out where there is none."""
    if not arn:
        return None
    return {"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": arn}


def user(record: UserRecord) -> Result:
    return {
        "Path": record.path,
        "UserName": record.name,
        "UserId": record.user_id,
        "Arn": names.arn(names.USER, record.path, record.name),
        "CreateDate": date(record.created_ms),
        "PermissionsBoundary": boundary(record.boundary),
        "Tags": tags(record.tags),
    }


def group(record: GroupRecord) -> Result:
    return {
        "Path": record.path,
        "GroupName": record.name,
        "GroupId": record.group_id,
        "Arn": names.arn(names.GROUP, record.path, record.name),
        "CreateDate": date(record.created_ms),
    }


def role(record: RoleRecord) -> Result:
    return {
        "Path": record.path,
        "RoleName": record.name,
        "RoleId": record.role_id,
        "Arn": names.arn(names.ROLE, record.path, record.name),
        "CreateDate": date(record.created_ms),
        "AssumeRolePolicyDocument": document(record.trust),
        "Description": record.description or None,
        "MaxSessionDuration": record.max_session_seconds,
        "PermissionsBoundary": boundary(record.boundary),
        "Tags": tags(record.tags),
    }


def policy(record: ManagedPolicyRecord, attachments: int, boundaries: int) -> Result:
    return {
        "PolicyName": record.name,
        "PolicyId": record.policy_id,
        "Arn": arn_of(record),
        "Path": record.path,
        "DefaultVersionId": version_id(record),
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": boundaries,
        "IsAttachable": True,
        "Description": record.description or None,
        "CreateDate": date(record.created_ms),
        "UpdateDate": date(record.updated_ms or record.created_ms),
        "Tags": tags(record.tags),
    }


def policy_version(record: ManagedPolicyRecord, *, whole: bool) -> Result:
    """The one version that is kept; with its document if `whole`."""
    return {
        "Document": document(record.document) if whole else None,
        "VersionId": version_id(record),
        "IsDefaultVersion": True,
        "CreateDate": date(record.updated_ms or record.created_ms),
    }


def version_id(record: ManagedPolicyRecord) -> str:
    return f"v{record.version}"


def access_key(record: AccessKeyRecord) -> Result:
    return {
        "UserName": record.user,
        "AccessKeyId": record.access_key,
        "Status": record.status,
        "CreateDate": date(record.created_ms),
    }
