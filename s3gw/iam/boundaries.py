"""Permissions boundaries of users and roles: `PutUserPermissionsBoundary`, …"""

from __future__ import annotations

from s3gw.iam.call import QueryCall
from s3gw.iam.inline import PARAMETER
from s3gw.identities import names


async def _put(call: QueryCall, kind: str) -> None:
    name, arn = call.parameters.text(PARAMETER[kind]), call.parameters.text("PermissionsBoundary")
    await call.store.put_boundary(kind, name, arn)


async def _delete(call: QueryCall, kind: str) -> None:
    await call.store.delete_boundary(kind, call.parameters.text(PARAMETER[kind]))


async def put_user_permissions_boundary(call: QueryCall) -> None:
    await _put(call, names.USER)


async def delete_user_permissions_boundary(call: QueryCall) -> None:
    await _delete(call, names.USER)


async def put_role_permissions_boundary(call: QueryCall) -> None:
    await _put(call, names.ROLE)


async def delete_role_permissions_boundary(call: QueryCall) -> None:
    await _delete(call, names.ROLE)
