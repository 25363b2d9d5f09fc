"""Answers of the query protocol, as documents.

A result is a tree of plain values, which becomes elements by the rules of the protocol: of a list
each item is a `<member>`, of `Entries` each pair an `<entry>` with `<key>` and `<value>`; what is
None is left out. Source: Smithy, "AWS query protocol".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3gw.iam.errors import QueryError
from s3gw.wire.xml import Writer

CONTENT_TYPE = "text/xml"
Result = dict[str, Any]
"""Names of elements to `str`, `int`, `bool`, None, a `Result`, `Entries` or a list of these."""


class Entries(dict[str, int | str]):
    """A map of the protocol."""


def result_document(action: str, namespace: str, result: Result | None, request_id: str) -> bytes:
    """The answer to an action that was done; `result` is None where it has none."""
    root = f"{action}Response"
    document = Writer(root, namespace=namespace)
    if result is not None:
        _write(document, f"{action}Result", result)
    _write(document, "ResponseMetadata", {"RequestId": request_id})
    return document.finish()


def error_document(error: QueryError, namespace: str, request_id: str) -> bytes:
    """The answer to an action that was not."""
    document = Writer("ErrorResponse", namespace=namespace)
    kind = "Sender" if error.status < 500 else "Receiver"
    _write(document, "Error", {"Type": kind, "Code": error.code, "Message": error.message})
    document.element("RequestId", request_id)
    return document.finish()


def _write(document: Writer, name: str, value: Any) -> None:
    match value:
        case None:
            pass
        case bool():
            document.flag(name, value)
        case str() | int():
            document.element(name, value)
        case Entries():
            document.open(name)
            for key, text in value.items():
                _write(document, "entry", {"key": key, "value": text})
            document.close(name)
        case Mapping():
            document.open(name)
            for inner, content in value.items():
                _write(document, inner, content)
            document.close(name)
        case list() | tuple():
            document.open(name)
            for each in value:
                _write(document, "member", each)
            document.close(name)
        case _:
            raise TypeError(f"{name}: {type(value).__name__} has no form in the query protocol")
