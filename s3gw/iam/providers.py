"""OpenID Connect providers: `CreateOpenIDConnectProvider`, …"""

from __future__ import annotations

from msgspec.structs import replace

from s3gw.iam import shapes
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.pages import page
from s3gw.iam.tags import with_tags, without_tags
from s3gw.identities import names
from s3gw.identities.web_identity import without_scheme


def _arn(call: QueryCall) -> str:
    return call.parameters.text("OpenIDConnectProviderArn")


async def create_provider(call: QueryCall) -> Result:
    record = await call.store.create_open_id_connect_provider(
        call.parameters.text("Url"),
        client_ids=call.parameters.texts("ClientIDList"),
        thumbprints=call.parameters.texts("ThumbprintList"),
        tags=call.parameters.tags(),
    )
    arn = names.provider_arn(record.url)
    return {"OpenIDConnectProviderArn": arn, "Tags": shapes.tags(record.tags)}


async def get_provider(call: QueryCall) -> Result:
    record = await call.store.get_open_id_connect_provider(_arn(call))
    return {
        "Url": without_scheme(record.url),
        "ClientIDList": list(record.client_ids),
        "ThumbprintList": list(record.thumbprints),
        "CreateDate": shapes.date(record.created_ms),
        "Tags": shapes.tags(record.tags),
    }


async def delete_provider(call: QueryCall) -> None:
    await call.store.delete_open_id_connect_provider(_arn(call))


async def list_providers(call: QueryCall) -> Result:
    arns = [names.provider_arn(r.url) for r in await call.store.list_open_id_connect_providers()]
    return {"OpenIDConnectProviderList": [{"Arn": arn} for arn in sorted(arns)]}


async def add_client_id(call: QueryCall) -> None:
    client = call.parameters.text("ClientID")
    await call.store.change_open_id_connect_provider(
        _arn(call), lambda before: replace(before, client_ids=(*before.client_ids, client))
    )


async def remove_client_id(call: QueryCall) -> None:
    client = call.parameters.text("ClientID")
    await call.store.change_open_id_connect_provider(
        _arn(call),
        lambda before: replace(
            before, client_ids=tuple(each for each in before.client_ids if each != client)
        ),
    )


async def update_thumbprint(call: QueryCall) -> None:
    thumbprints = tuple(call.parameters.texts("ThumbprintList"))
    await call.store.change_open_id_connect_provider(
        _arn(call), lambda before: replace(before, thumbprints=thumbprints)
    )


async def tag_provider(call: QueryCall) -> None:
    tags = call.parameters.tags()
    await call.store.change_open_id_connect_provider(
        _arn(call), lambda before: replace(before, tags=with_tags(before.tags, tags))
    )


async def untag_provider(call: QueryCall) -> None:
    gone = call.parameters.texts("TagKeys")
    await call.store.change_open_id_connect_provider(
        _arn(call), lambda before: replace(before, tags=without_tags(before.tags, gone))
    )


async def list_provider_tags(call: QueryCall) -> Result:
    tags = (await call.store.get_open_id_connect_provider(_arn(call))).tags
    found, more = page(call, list(tags), str)
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in found], **more}
