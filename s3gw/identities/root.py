"""The root identity: the one user that the configuration makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

from s3gw.auth.policy import Principal, PrincipalType

# A store is one account. Its number is the same everywhere, as ARNs of its users are written into
# policies that move between stores.
ACCOUNT_ID = "000000000000"
# The 64 hexadecimal digits that S3 shows as an owner's id: those of the account, which owns all
# that its users make; the same on every gateway and after every change of keys.
CANONICAL_ID = sha256(b"s3gw root user").hexdigest()
ROOT_NAME = "root"


def account_owner(canonical_id: str) -> Principal:
    """An owner as listings show it: the account of a canonical id."""
    return Principal(canonical_id, ROOT_NAME if canonical_id == CANONICAL_ID else canonical_id)


@dataclass(frozen=True, slots=True)
class Root:
    """Access key and secret of the owner of everything."""

    access_key: str
    secret_key: str = field(repr=False)
    name: str = ROOT_NAME

    @property
    def canonical_id(self) -> str:
        """The account's."""
        return CANONICAL_ID

    @property
    def principal(self) -> Principal:
        """Root as policies see it."""
        return Principal(
            self.canonical_id,
            self.name,
            PrincipalType.ROOT,
            account=ACCOUNT_ID,
            arn=f"arn:aws:iam::{ACCOUNT_ID}:root",
            user_id=ACCOUNT_ID,
        )
