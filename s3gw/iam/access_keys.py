"""Access keys: `CreateAccessKey`, `ListAccessKeys`, …

Root's key is the configuration's: it is shown and cannot be changed here. Service accounts belong
to the admin API; IAM has no word for them.
"""

from __future__ import annotations

from s3gw.iam import shapes
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.pages import page
from s3gw.iam.resources import about_root, user_name
from s3gw.metadata.identity_records import ACTIVE


async def create_access_key(call: QueryCall) -> Result:
    record, secret = await call.store.create_access_key(user_name(call))
    return {"AccessKey": {**shapes.access_key(record), "SecretAccessKey": secret}}


async def update_access_key(call: QueryCall) -> None:
    user = user_name(call)
    key, status = call.parameters.text("AccessKeyId"), call.parameters.text("Status")
    await call.store.update_access_key(key, status, user=user)


async def delete_access_key(call: QueryCall) -> None:
    await call.store.delete_access_key(call.parameters.text("AccessKeyId"), user=user_name(call))


async def list_access_keys(call: QueryCall) -> Result:
    if about_root(call):
        root = call.services.view.root
        created = shapes.date(call.store.store.identity.created_ms)
        key = {"AccessKeyId": root.access_key, "Status": ACTIVE, "CreateDate": created}
        return {"AccessKeyMetadata": [key], "IsTruncated": False}
    user = user_name(call)
    held = [key for key in await call.store.list_access_keys(user) if not key.service]
    found, more = page(call, held, lambda key: key.access_key)
    return {"UserName": user, "AccessKeyMetadata": [shapes.access_key(k) for k in found], **more}


async def get_access_key_last_used(call: QueryCall) -> Result:
    """When a key was used is not kept, which is answered as IAM does for one not used since it
    began to keep it: without a date."""
    record = await call.store.get_access_key(call.parameters.text("AccessKeyId"))
    return {
        "UserName": record.user,
        "AccessKeyLastUsed": {"ServiceName": "N/A", "Region": "N/A"},
    }
