"""Groups and who is in them: `CreateGroup`, `AddUserToGroup`, …"""

from __future__ import annotations

from s3gw.iam import shapes
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.errors import NotImplementedAction
from s3gw.iam.pages import page
from s3gw.identities import names


async def create_group(call: QueryCall) -> Result:
    path = call.parameters.optional("Path") or "/"
    record = await call.store.create_group(call.parameters.text("GroupName"), path=path)
    return {"Group": shapes.group(record)}


async def get_group(call: QueryCall) -> Result:
    name = call.parameters.text("GroupName")
    record = await call.store.get_group(name)
    found, more = page(call, await call.store.members_of(name), lambda user: user.name)
    users = [{**shapes.user(user), "Tags": None} for user in found]
    return {"Group": shapes.group(record), "Users": users, **more}


async def update_group(call: QueryCall) -> None:
    """Asks for the permission on what the group becomes, too."""
    name = call.parameters.text("GroupName")
    if call.parameters.optional("NewGroupName") not in (None, name):
        raise NotImplementedAction("Groups cannot be renamed.")
    path = call.parameters.optional("NewPath")
    if path is None:
        await call.store.get_group(name)
        return
    call.require(names.arn(names.GROUP, path, name))
    await call.store.update_group_path(name, path)


async def delete_group(call: QueryCall) -> None:
    await call.store.delete_group(call.parameters.text("GroupName"))


async def list_groups(call: QueryCall) -> Result:
    prefix = call.parameters.optional("PathPrefix") or "/"
    matching = [g for g in await call.store.list_groups() if g.path.startswith(prefix)]
    found, more = page(call, matching, lambda group: group.name)
    return {"Groups": [shapes.group(group) for group in found], **more}


async def add_user_to_group(call: QueryCall) -> None:
    parameters = call.parameters
    await call.store.add_user_to_group(parameters.text("GroupName"), parameters.text("UserName"))


async def remove_user_from_group(call: QueryCall) -> None:
    group, user = call.parameters.text("GroupName"), call.parameters.text("UserName")
    await call.store.remove_user_from_group(group, user)


async def list_groups_for_user(call: QueryCall) -> Result:
    user = await call.store.get_user(call.parameters.text("UserName"))
    groups = [group for group in await call.store.list_groups() if group.name in user.groups]
    found, more = page(call, groups, lambda group: group.name)
    return {"Groups": [shapes.group(group) for group in found], **more}
