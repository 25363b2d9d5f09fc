"""Settings that are changed while the store runs, and profiles."""

from __future__ import annotations

import msgspec

from s3gw.admin import models
from s3gw.admin.port import AdminPort, bad_request
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


async def profiles(port: AdminPort) -> models.Profiles:
    """The profiles, and what each survives."""
    await port.storage.blobs.topology.load()
    return models.Profiles(
        [
            models.ProfileView(
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
            for profile in sorted(
                port.storage.blobs.topology.profiles(), key=lambda profile: profile.name
            )
        ]
    )
