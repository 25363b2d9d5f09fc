"""Tags of users and roles: `TagUser`, `ListRoleTags`, …"""

from __future__ import annotations

from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.inline import PARAMETER
from s3gw.iam.pages import page
from s3gw.identities import names


def with_tags(before: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Tags with others added. Their keys are the same whatever their case; the new one is kept."""
    return {**without_tags(before, list(new)), **new}


def without_tags(before: dict[str, str], gone: list[str]) -> dict[str, str]:
    """Tags without some."""
    folded = {key.lower() for key in gone}
    return {key: value for key, value in before.items() if key.lower() not in folded}


async def _tag(call: QueryCall, kind: str) -> None:
    tags, name = call.parameters.tags(), call.parameters.text(PARAMETER[kind])
    await call.store.change_tags(
        kind, name, lambda before: names.check_tags(with_tags(before, tags))
    )


async def _untag(call: QueryCall, kind: str) -> None:
    gone, name = call.parameters.texts("TagKeys"), call.parameters.text(PARAMETER[kind])
    await call.store.change_tags(kind, name, lambda before: without_tags(before, gone))


async def _list(call: QueryCall, kind: str) -> Result:
    tags = await call.store.tags_of(kind, call.parameters.text(PARAMETER[kind]))
    found, more = page(call, list(tags), str)
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in found], **more}


async def tag_user(call: QueryCall) -> None:
    await _tag(call, names.USER)


async def untag_user(call: QueryCall) -> None:
    await _untag(call, names.USER)


async def list_user_tags(call: QueryCall) -> Result:
    return await _list(call, names.USER)


async def tag_role(call: QueryCall) -> None:
    await _tag(call, names.ROLE)


async def untag_role(call: QueryCall) -> None:
    await _untag(call, names.ROLE)


async def list_role_tags(call: QueryCall) -> Result:
    return await _list(call, names.ROLE)
