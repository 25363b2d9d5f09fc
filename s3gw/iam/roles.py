"""Roles: `CreateRole`, `UpdateAssumeRolePolicy`, …"""

from __future__ import annotations

from s3gw.iam import shapes
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.pages import page


async def create_role(call: QueryCall) -> Result:
    parameters = call.parameters
    record = await call.store.create_role(
        parameters.text("RoleName"),
        parameters.text("AssumeRolePolicyDocument"),
        path=parameters.optional("Path") or "/",
        description=parameters.optional("Description") or "",
        max_session_seconds=parameters.integer("MaxSessionDuration") or 3600,
        boundary=parameters.optional("PermissionsBoundary") or "",
        tags=parameters.tags(),
    )
    return {"Role": shapes.role(record)}


async def get_role(call: QueryCall) -> Result:
    return {"Role": shapes.role(await call.store.shown_role(call.parameters.text("RoleName")))}


async def update_role(call: QueryCall) -> Result:
    await call.store.update_role(
        call.parameters.text("RoleName"),
        description=call.parameters.optional("Description"),
        max_session_seconds=call.parameters.integer("MaxSessionDuration"),
    )
    return {}


async def update_role_description(call: QueryCall) -> Result:
    record = await call.store.update_role(
        call.parameters.text("RoleName"), description=call.parameters.text("Description")
    )
    (shown,) = await call.store.shown_roles([record])
    return {"Role": shapes.role(shown)}


async def delete_role(call: QueryCall) -> None:
    await call.store.delete_role(call.parameters.text("RoleName"))


async def list_roles(call: QueryCall) -> Result:
    prefix = call.parameters.optional("PathPrefix") or "/"
    matching = [role for role in await call.store.list_roles() if role.path.startswith(prefix)]
    found, more = page(call, matching, lambda role: role.name)
    shown = await call.store.shown_roles(found)
    return {"Roles": [{**shapes.role(role), "Tags": None} for role in shown], **more}


async def update_assume_role_policy(call: QueryCall) -> None:
    name, document = call.parameters.text("RoleName"), call.parameters.text("PolicyDocument")
    await call.store.update_assume_role_policy(name, document)
