"""What this store does not have, asked for by what lists or removes users and roles: none of it is
there, and that is the answer. Making any of it is not implemented.
"""

from __future__ import annotations

from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.resources import about_root, user_name
from s3gw.identities.errors import NoSuchEntity


async def _none_of_user(call: QueryCall, what: str) -> Result:
    if not about_root(call):
        await call.store.get_user(user_name(call))
    return {what: [], "IsTruncated": False}


async def list_mfa_devices(call: QueryCall) -> Result:
    return await _none_of_user(call, "MFADevices")


async def list_ssh_public_keys(call: QueryCall) -> Result:
    return await _none_of_user(call, "SSHPublicKeys")


async def list_signing_certificates(call: QueryCall) -> Result:
    return await _none_of_user(call, "Certificates")


async def list_service_specific_credentials(call: QueryCall) -> Result:
    return await _none_of_user(call, "ServiceSpecificCredentials")


async def list_virtual_mfa_devices(_call: QueryCall) -> Result:
    return {"VirtualMFADevices": [], "IsTruncated": False}


async def list_account_aliases(_call: QueryCall) -> Result:
    return {"AccountAliases": [], "IsTruncated": False}


async def list_instance_profiles(_call: QueryCall) -> Result:
    return {"InstanceProfiles": [], "IsTruncated": False}


async def list_instance_profiles_for_role(call: QueryCall) -> Result:
    await call.store.get_role(call.parameters.text("RoleName"))
    return {"InstanceProfiles": [], "IsTruncated": False}


async def login_profile(call: QueryCall) -> None:
    """Nobody has a password, so there is none to show or to remove."""
    name = user_name(call)
    await call.store.get_user(name)
    raise NoSuchEntity(f"Login Profile for User {name} cannot be found.")
