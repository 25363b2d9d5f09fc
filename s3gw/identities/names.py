"""Names, paths, ARNs, ids and tags of identities, and the form that each must have.

Source: IAM User Guide, "IAM and AWS STS quotas" and "IAM identifiers"; IAM API Reference, the
patterns of each parameter. Names that differ by case alone are the same name.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from s3gw import limits
from s3gw.identities.errors import InvalidInput, LimitExceeded, ValidationError
from s3gw.identities.root import ACCOUNT_ID

AWS_ACCOUNT = "aws"
USER, GROUP, ROLE, POLICY = "user", "group", "role", "policy"
PROVIDER = "oidc-provider"
SERVICE_ACCOUNT_DESCRIPTION_MAX = limits.IAM_DESCRIPTION_CHARACTERS_MAX

# What begins a unique id or an access key id says what it is of (IAM User Guide, "Unique
# identifiers"). What follows is 16 or 17 characters of base32.
USER_ID, GROUP_ID, ROLE_ID, POLICY_ID = "AIDA", "AGPA", "AROA", "ANPA"
ACCESS_KEY = "AKIA"
ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
UNIQUE_ID_DIGITS, ACCESS_KEY_DIGITS = 17, 16
BASE64_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
SECRET_LENGTH = 40

_NAME = re.compile(r"[\w+=,.@-]+", re.ASCII)
_PATH = re.compile(r"/|/[!-~]+/", re.ASCII)
_TAG = re.compile(r"[\w\s.:/=+\-@]*")
_DESCRIPTION = re.compile(r"[\t\n\r\x20-\x7e\xa1-\xff]*")
_ACCESS_KEY = re.compile(r"\w{16,128}", re.ASCII)
_MANAGED = re.compile(r"arn:aws:iam::(\d{12}|aws):policy(/[!-~]*/|/)([\w+=,.@-]+)", re.ASCII)

_LENGTHS = {
    USER: limits.IAM_USER_NAME_CHARACTERS_MAX,
    ROLE: limits.IAM_USER_NAME_CHARACTERS_MAX,
    GROUP: limits.IAM_NAME_CHARACTERS_MAX,
    POLICY: limits.IAM_NAME_CHARACTERS_MAX,
}


def check_name(kind: str, name: str) -> str:
    """The name of a user, group, role or policy. Raises ValidationError."""
    most = _LENGTHS[kind]
    if not 1 <= len(name) <= most:
        raise ValidationError(
            f"1 validation error detected: Value at '{kind}Name' failed to satisfy constraint: "
            f"Member must have length between 1 and {most}"
        )
    if not _NAME.fullmatch(name):
        raise ValidationError(
            f"The specified value for {kind}Name is invalid. It must contain only alphanumeric "
            "characters and/or the following: +=,.@_-"
        )
    return name


def check_path(path: str) -> str:
    """Raises ValidationError."""
    if len(path) > limits.IAM_PATH_CHARACTERS_MAX or not _PATH.fullmatch(path):
        raise ValidationError(
            "The specified value for path is invalid. It must begin and end with / and contain "
            "only alphanumeric characters and/or / characters."
        )
    return path


def check_description(text: str) -> str:
    """Raises ValidationError."""
    if len(text) > limits.IAM_DESCRIPTION_CHARACTERS_MAX or not _DESCRIPTION.fullmatch(text):
        raise ValidationError(
            "The specified value for description is invalid: at most "
            f"{limits.IAM_DESCRIPTION_CHARACTERS_MAX} characters of Latin-1, no controls."
        )
    return text


def check_access_key(access_key: str) -> str:
    """Raises ValidationError."""
    if not _ACCESS_KEY.fullmatch(access_key):
        raise ValidationError("The specified value for accessKeyId is invalid.")
    return access_key


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Raises LimitExceeded, InvalidInput."""
    if len(tags) > limits.IAM_TAGS_MAX:
        raise LimitExceeded(f"Cannot exceed quota for TagsPerEntity: {limits.IAM_TAGS_MAX}")
    if len({key.lower() for key in tags}) != len(tags):
        raise InvalidInput(
            "Duplicate tag keys found. Please note that Tag keys are case insensitive."
        )
    for key, value in tags.items():
        if not 1 <= len(key) <= limits.TAG_KEY_CHARACTERS_MAX or not _TAG.fullmatch(key):
            raise InvalidInput(f"The tag key {key!r} is not valid.")
        if key.lower().startswith("aws:"):
            raise InvalidInput("Tag keys that start with aws: are reserved.")
        if len(value) > limits.TAG_VALUE_CHARACTERS_MAX or not _TAG.fullmatch(value):
            raise InvalidInput(f"The value of the tag {key!r} is not valid.")
    return dict(tags)


def arn(kind: str, path: str, name: str, account: str = ACCOUNT_ID) -> str:
    """The ARN of a user, group, role or managed policy.

    >>> arn("user", "/staff/", "alice")
    'arn:aws:iam::000000000000:user/staff/alice'
    """
    return f"arn:aws:iam::{account}:{kind}{path}{name}"


def provider_arn(url: str) -> str:
    """The ARN of an OpenID Connect provider."""
    return f"arn:aws:iam::{ACCOUNT_ID}:{PROVIDER}/{url.removeprefix('https://')}"


def policy_of_arn(policy_arn: str) -> tuple[str, str]:
    """Account and name of a managed policy's ARN. Raises ValidationError."""
    found = _MANAGED.fullmatch(policy_arn)
    if found is None:
        raise ValidationError(f"ARN {policy_arn} is not valid.")
    return found[1], found[3]


def new_id(kind: str) -> str:
    """A unique id that was never used."""
    return kind + _drawn(ID_CHARACTERS, UNIQUE_ID_DIGITS)


def new_access_key() -> str:
    """An access key id that was never used."""
    return ACCESS_KEY + _drawn(ID_CHARACTERS, ACCESS_KEY_DIGITS)


def new_secret() -> str:
    """A secret access key: 240 random bits."""
    return _drawn(BASE64_CHARACTERS, SECRET_LENGTH)


def _drawn(characters: str, count: int) -> str:
    return "".join(secrets.choice(characters) for _ in range(count))
