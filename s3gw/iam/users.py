"""Users: `CreateUser`, `GetUser`, …"""

from __future__ import annotations

from msgspec.structs import replace

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


async def put_user_permissions_boundary(call: QueryCall) -> None:
    name, arn = call.parameters.text("UserName"), call.parameters.text("PermissionsBoundary")
    await call.store.put_boundary(names.USER, name, arn)


async def delete_user_permissions_boundary(call: QueryCall) -> None:
    await call.store.delete_boundary(names.USER, call.parameters.text("UserName"))


async def tag_user(call: QueryCall) -> None:
    tags = call.parameters.tags()
    await call.store.change_user(
        call.parameters.text("UserName"),
        lambda user: replace(user, tags=names.check_tags(with_tags(user.tags, tags))),
    )


async def untag_user(call: QueryCall) -> None:
    gone = call.parameters.texts("TagKeys")
    await call.store.change_user(
        call.parameters.text("UserName"),
        lambda user: replace(user, tags=without_tags(user.tags, gone)),
    )


async def list_user_tags(call: QueryCall) -> Result:
    user = await call.store.get_user(call.parameters.text("UserName"))
    found, more = page(call, list(user.tags), str)
    return {"Tags": [{"Key": key, "Value": user.tags[key]} for key in found], **more}


def with_tags(before: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Tags with others added. Their keys are the same whatever their case; the new one is kept."""
    return {**without_tags(before, list(new)), **new}


def without_tags(before: dict[str, str], gone: list[str]) -> dict[str, str]:
    """Tags without some."""
    folded = {key.lower() for key in gone}
    return {key: value for key, value in before.items() if key.lower() not in folded}
