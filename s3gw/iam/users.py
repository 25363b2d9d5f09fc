"""Users: `CreateUser`, `GetUser`, …"""

from __future__ import annotations

from s3gw.iam import shapes
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.pages import page
from s3gw.iam.resources import about_root, user_name
from s3gw.identities import names


async def create_user(call: QueryCall) -> Result:
    parameters = call.parameters
    record = await call.store.create_user(
        parameters.text("UserName"),
        path=parameters.optional("Path") or "/",
        tags=parameters.tags(),
        boundary=parameters.optional("PermissionsBoundary") or "",
    )
    return {"User": shapes.user(record)}


async def get_user(call: QueryCall) -> Result:
    if about_root(call):
        created = call.store.store.identity.created_ms
        return {
            "User": {
                "Path": "/",
                "UserId": call.principal.user_id,
                "Arn": call.principal.arn,
                "CreateDate": shapes.date(created),
            }
        }
    return {"User": shapes.user(await call.store.get_user(user_name(call)))}


async def update_user(call: QueryCall) -> None:
    """Asks for the permission on what the user becomes, too."""
    name = call.parameters.text("UserName")
    new_name = call.parameters.optional("NewUserName")
    new_path = call.parameters.optional("NewPath")
    before = await call.store.get_user(name)
    path = before.path if new_path is None else new_path
    call.require(names.arn(names.USER, path, new_name or name))
    await call.store.update_user(name, new_name=new_name, new_path=new_path)


async def delete_user(call: QueryCall) -> None:
    await call.store.delete_user(call.parameters.text("UserName"))


async def list_users(call: QueryCall) -> Result:
    prefix = call.parameters.optional("PathPrefix") or "/"
    matching = [u for u in await call.store.list_users() if u.path.startswith(prefix)]
    found, more = page(call, matching, lambda user: user.name)
    return {"Users": [{**shapes.user(user), "Tags": None} for user in found], **more}
