"""Managed policies of a user, group or role: `AttachUserPolicy`, `ListAttachedRolePolicies`, …"""

from __future__ import annotations

from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.inline import PARAMETER
from s3gw.iam.pages import page
from s3gw.identities import names


async def _attach(call: QueryCall, kind: str) -> None:
    holder, policy = call.parameters.text(PARAMETER[kind]), call.parameters.text("PolicyArn")
    await call.store.attach_policy(kind, holder, policy)


async def _detach(call: QueryCall, kind: str) -> None:
    holder, policy = call.parameters.text(PARAMETER[kind]), call.parameters.text("PolicyArn")
    await call.store.detach_policy(kind, holder, policy)


async def _list(call: QueryCall, kind: str) -> Result:
    holder = await call.store.holder(kind, call.parameters.text(PARAMETER[kind]))
    prefix = call.parameters.optional("PathPrefix") or "/"
    matching = [arn for arn in holder.attached if _path(arn).startswith(prefix)]
    found, more = page(call, matching, str)
    policies = [{"PolicyName": names.policy_of_arn(a)[1], "PolicyArn": a} for a in found]
    return {"AttachedPolicies": policies, **more}


def _path(arn: str) -> str:
    """The path of a policy's ARN.

    >>> _path("arn:aws:iam::000000000000:policy/team/p")
    '/team/'
    """
    return arn.partition(":policy")[2].rpartition("/")[0] + "/"


async def attach_user_policy(call: QueryCall) -> None:
    await _attach(call, names.USER)


async def detach_user_policy(call: QueryCall) -> None:
    await _detach(call, names.USER)


async def list_attached_user_policies(call: QueryCall) -> Result:
    return await _list(call, names.USER)


async def attach_group_policy(call: QueryCall) -> None:
    await _attach(call, names.GROUP)


async def detach_group_policy(call: QueryCall) -> None:
    await _detach(call, names.GROUP)


async def list_attached_group_policies(call: QueryCall) -> Result:
    return await _list(call, names.GROUP)


async def attach_role_policy(call: QueryCall) -> None:
    await _attach(call, names.ROLE)


async def detach_role_policy(call: QueryCall) -> None:
    await _detach(call, names.ROLE)


async def list_attached_role_policies(call: QueryCall) -> Result:
    return await _list(call, names.ROLE)
