"""Settings that are changed while the store runs, and profiles."""

from __future__ import annotations

import msgspec

from s3gw.admin import models
from s3gw.admin.port import AdminPort, bad_request, conflict
from s3gw.cluster import profiles as profiles_of
from s3gw.cluster.profiles import ProfileConflict, ProfileRefused
from s3gw.cluster.topology import Profile
from s3gw.cluster.tunables import BadTunable
from s3gw.metadata.records import Tunables


def _view(tunables: Tunables) -> msgspec.Struct:
    return models.TunablesView(**msgspec.structs.asdict(tunables))


async def show_tunables(port: AdminPort) -> msgspec.Struct:
    """The settings as they are for all processes."""
    await port.tunables.refresh()
    return _view(port.tunables.current)


async def change_tunables(port: AdminPort, body: msgspec.Struct) -> msgspec.Struct:
    """Change some of them; every process obeys within seconds."""
    given = {
        name: value
        for name, value in msgspec.structs.asdict(body).items()
        if value is not msgspec.UNSET
    }
    if not given:
        raise bad_request("name at least one setting")
    try:
        return _view(await port.tunables.change(given))
    except BadTunable as error:
        raise bad_request(str(error)) from error


def _profile_view(profile: Profile) -> models.ProfileView:
    return models.ProfileView(
        profile.name,
        str(profile.scheme),
        profile.scheme.data,
        profile.scheme.parity,
        profile.scheme.tolerance,
        profile.stripe_bytes,
        profile.pg_count,
        profile.failure_domain,
        profile.companion,
    )


async def create_profile(port: AdminPort, body: models.CreateProfile) -> models.ProfileView:
    """Make a profile and the companion for its small blobs."""
    storage = port.storage
    try:
        await profiles_of.create_profile(
            storage.store.kv,
            storage.blobs.topology,
            body.name,
            body.scheme,
            pg_count=body.pg_count,
            stripe_bytes=body.stripe_bytes,
            failure_domain=body.failure_domain,
            now_ms=storage.clock_ms(),
            storage_classes=body.storage_classes,
        )
    except ProfileRefused as error:
        raise bad_request(str(error)) from error
    except ProfileConflict as error:
        raise conflict(str(error)) from error
    return _profile_view(storage.blobs.topology.profile(body.name))


async def profiles(port: AdminPort) -> models.Profiles:
    """The profiles, and what each survives."""
    await port.storage.blobs.topology.load()
    known = sorted(port.storage.blobs.topology.profiles(), key=lambda profile: profile.name)
    return models.Profiles([_profile_view(profile) for profile in known])
