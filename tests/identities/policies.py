"""Policy documents of the tests."""

from __future__ import annotations

import json
from typing import Any

EVERYTHING = "arn:aws:iam::aws:policy/AdministratorAccess"
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"


def document(*statements: dict[str, Any], **single: Any) -> str:
    """A policy of these statements, or of one with these elements; what is not said is Allow and
    every resource."""
    default = {"Effect": "Allow", "Resource": "*"}
    found = [{**default, **each} for each in (*statements, *([single] if single else []))]
    return json.dumps({"Version": "2012-10-17", "Statement": found})


def allow(*actions: str, on: str = "*") -> str:
    return document(Action=list(actions), Resource=on)


def trust(principal: Any, action: str = "sts:AssumeRole") -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": action}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
