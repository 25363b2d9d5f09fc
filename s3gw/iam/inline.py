"""Policies of a user, group or role itself: `PutUserPolicy`, `GetRolePolicy`, …"""

from __future__ import annotations

from s3gw.iam import shapes
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.pages import page
from s3gw.identities import names

PARAMETER = {names.USER: "UserName", names.GROUP: "GroupName", names.ROLE: "RoleName"}


async def _put(call: QueryCall, kind: str) -> None:
    parameters = call.parameters
    holder, policy = parameters.text(PARAMETER[kind]), parameters.text("PolicyName")
    await call.store.put_inline_policy(kind, holder, policy, parameters.text("PolicyDocument"))


async def _get(call: QueryCall, kind: str) -> Result:
    holder, policy = call.parameters.text(PARAMETER[kind]), call.parameters.text("PolicyName")
    document = await call.store.get_inline_policy(kind, holder, policy)
    return {
        PARAMETER[kind]: holder,
        "PolicyName": policy,
        "PolicyDocument": shapes.document(document),
    }


async def _delete(call: QueryCall, kind: str) -> None:
    holder, policy = call.parameters.text(PARAMETER[kind]), call.parameters.text("PolicyName")
    await call.store.delete_inline_policy(kind, holder, policy)


async def _list(call: QueryCall, kind: str) -> Result:
    holder = await call.store.holder(kind, call.parameters.text(PARAMETER[kind]))
    found, more = page(call, list(holder.policies), str)
    return {"PolicyNames": found, **more}


async def put_user_policy(call: QueryCall) -> None:
    await _put(call, names.USER)


async def get_user_policy(call: QueryCall) -> Result:
    return await _get(call, names.USER)


async def delete_user_policy(call: QueryCall) -> None:
    await _delete(call, names.USER)


async def list_user_policies(call: QueryCall) -> Result:
    return await _list(call, names.USER)


async def put_group_policy(call: QueryCall) -> None:
    await _put(call, names.GROUP)


async def get_group_policy(call: QueryCall) -> Result:
    return await _get(call, names.GROUP)


async def delete_group_policy(call: QueryCall) -> None:
    await _delete(call, names.GROUP)


async def list_group_policies(call: QueryCall) -> Result:
    return await _list(call, names.GROUP)


async def put_role_policy(call: QueryCall) -> None:
    await _put(call, names.ROLE)


async def get_role_policy(call: QueryCall) -> Result:
    return await _get(call, names.ROLE)


async def delete_role_policy(call: QueryCall) -> None:
    await _delete(call, names.ROLE)


async def list_role_policies(call: QueryCall) -> Result:
    return await _list(call, names.ROLE)
