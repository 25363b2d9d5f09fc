"""Where encryption keys come from: the configuration, and for `s3gw up` its data directory.

`up` makes a master key when it first starts, as it makes root's keys, so that encryption can be
asked for. It makes none when objects are encrypted under one that is gone: nobody could tell then
what is missing.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from s3gw.config import Config, ConfigError
from s3gw.identities.root import ACCOUNT_ID
from s3gw.objects.keyring import master
from s3gw.objects.keyring.master import BadMasterKeys, MasterKeys
from s3gw.objects.keyring.ring import Sources
from s3gw.objects.keyring.transit import Transit

MASTER_KEY_FILE = "master.key"


def master_keys(config: Config) -> MasterKeys | None:
    """The master keys that are configured. Raises ConfigError."""
    try:
        if config.master_key:
            return master.parse(config.master_key)
        if config.master_key_file:
            return master.read_file(Path(config.master_key_file))
    except BadMasterKeys as error:
        named = "master_key: " if config.master_key else ""
        raise ConfigError(f"{named}{error}") from error
    return None


def sources_of(config: Config) -> Sources:
    """All key sources of a process. Raises ConfigError."""
    transit = None
    if config.vault_address:
        transit = Transit(
            config.vault_address, Path(config.vault_token_file), mount=config.vault_mount
        )
    return Sources(
        region=config.region,
        account=ACCOUNT_ID,
        default_key=config.kms_default_key,
        master=master_keys(config),
        transit=transit,
        transit_key=config.vault_master_key,
    )


def with_kept_master_key(config: Config) -> Config:
    """The configuration with the master key that the data directory has, unless it names one."""
    path = kept_path(config)
    if config.master_key or config.master_key_file or not path.exists():
        return config
    return msgspec.structs.replace(config, master_key_file=str(path))


def kept_path(config: Config) -> Path:
    """Where `up` keeps the master key that it made."""
    return Path(config.data).absolute() / MASTER_KEY_FILE
