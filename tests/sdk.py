"""Clients of boto3 from one session: a session of its own would read the SDK's models again, which
takes twenty times as long as the client itself."""

import threading
from typing import Any

import boto3

_SESSION = boto3.session.Session()
_MAKING = threading.Lock()


def client(service: str, **arguments: Any) -> Any:
    """What `boto3.client` makes, from any thread: sessions are not safe to share, clients are."""
    with _MAKING:
        return _SESSION.client(service, **arguments)
