"""OpenID Connect providers, by whose tokens roles are assumed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from msgspec.structs import replace

from s3gw import limits
from s3gw.identities import names
from s3gw.identities.changes import Change, Changes, read_all
from s3gw.identities.errors import (
    EntityAlreadyExists,
    InvalidInput,
    LimitExceeded,
    NoSuchEntity,
    ValidationError,
)
from s3gw.metadata import keys
from s3gw.metadata.identity_records import OidcProviderRecord

HTTPS = "https://"
_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}", re.ASCII)
_PREFIX = names.provider_arn("")


def check_url(url: str) -> str:
    """The issuer of tokens: https, without query. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"Invalid Open ID Connect Provider URL: {error}") from error
    plain = url.isascii() and url.isprintable() and " " not in url
    if (
        parts.scheme != "https"
        or not parts.hostname
        or not plain
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or not 1 <= len(url) <= limits.OIDC_URL_CHARACTERS_MAX
    ):
        raise InvalidInput("Invalid Open ID Connect Provider URL")
    return url.rstrip("/")


def check_client_ids(client_ids: Sequence[str]) -> tuple[str, ...]:
    """Audiences that tokens may be for. Raises ValidationError, LimitExceeded."""
    if len(client_ids) > limits.OIDC_CLIENT_IDS_MAX:
        raise LimitExceeded(
            f"Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: "
            f"{limits.OIDC_CLIENT_IDS_MAX}"
        )
    for client_id in client_ids:
        if not (1 <= len(client_id) <= limits.OIDC_URL_CHARACTERS_MAX and client_id.isprintable()):
            raise ValidationError("The specified value for clientID is invalid.")
    return tuple(dict.fromkeys(client_ids))


def check_thumbprints(thumbprints: Sequence[str]) -> tuple[str, ...]:
    """SHA-1 of certificates, in hexadecimal. Raises InvalidInput."""
    if len(thumbprints) > limits.OIDC_THUMBPRINTS_MAX:
        raise InvalidInput("Thumbprint list must contain fewer than 5 entries.")
    if not all(_THUMBPRINT.fullmatch(each) for each in thumbprints):
        raise InvalidInput("Thumbprint must be 40 hexadecimal digits.")
    return tuple(thumbprints)


def _key_of_arn(provider_arn: str) -> bytes:
    if not provider_arn.startswith(_PREFIX):
        raise ValidationError(f"ARN {provider_arn} is not valid.")
    return keys.identity_provider(HTTPS + provider_arn.removeprefix(_PREFIX))


def _found(record: OidcProviderRecord | None, provider_arn: str) -> OidcProviderRecord:
    if record is None or names.provider_arn(record.url) != provider_arn:
        raise NoSuchEntity(f"OpenIDConnect Provider not found for arn {provider_arn}")
    return record


class Providers(Changes):
    """OpenID Connect providers."""

    async def create_open_id_connect_provider(
        self,
        url: str,
        *,
        client_ids: Sequence[str] = (),
        thumbprints: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> OidcProviderRecord:
        """Raises EntityAlreadyExists, LimitExceeded, InvalidInput, ValidationError."""
        record = OidcProviderRecord(
            check_url(url),
            self.clock_ms(),
            check_client_ids(client_ids),
            check_thumbprints(thumbprints),
            names.check_tags(tags or {}),
        )
        key = keys.identity_provider(record.url)

        async def decide(change: Change) -> OidcProviderRecord:
            if await change.get(OidcProviderRecord, key) is not None:
                raise EntityAlreadyExists(f"Provider with url {url} already exists.")
            most = limits.OIDC_PROVIDERS_MAX
            if len(await change.all(OidcProviderRecord, keys.IDENTITY_PROVIDERS)) >= most:
                raise LimitExceeded(f"Cannot exceed quota for OpenIdConnectProviders: {most}")
            change.put(key, record)
            return record

        return await self.change(decide)

    async def get_open_id_connect_provider(self, provider_arn: str) -> OidcProviderRecord:
        """Raises NoSuchEntity, ValidationError."""
        found = await self.store.get(OidcProviderRecord, _key_of_arn(provider_arn))
        return _found(found.record, provider_arn)

    async def list_open_id_connect_providers(self) -> list[OidcProviderRecord]:
        """All."""
        return await read_all(self.store, OidcProviderRecord, keys.IDENTITY_PROVIDERS)

    async def change_open_id_connect_provider(
        self, provider_arn: str, make: Callable[[OidcProviderRecord], OidcProviderRecord]
    ) -> OidcProviderRecord:
        """Replace client ids, thumbprints or tags by what `make` says; its URL is fixed. Raises
        NoSuchEntity, ValidationError, LimitExceeded, InvalidInput and what `make` raises."""
        key = _key_of_arn(provider_arn)

        async def decide(change: Change) -> OidcProviderRecord:
            before = _found(await change.get(OidcProviderRecord, key), provider_arn)
            after = make(before)
            after = replace(
                before,
                client_ids=check_client_ids(after.client_ids),
                thumbprints=check_thumbprints(after.thumbprints),
                tags=names.check_tags(after.tags),
            )
            if after != before:
                change.put(key, after)
            return after

        return await self.change(decide)

    async def delete_open_id_connect_provider(self, provider_arn: str) -> None:
        """Raises NoSuchEntity, ValidationError."""
        key = _key_of_arn(provider_arn)

        async def decide(change: Change) -> None:
            _found(await change.get(OidcProviderRecord, key), provider_arn)
            change.delete(key)

        await self.change(decide)
