"""XML documents: the one place that parses them, and the writer of replies.

**Reading.** xmltodict drives expat, and by itself would strip the spaces of a `<Key>` (deleting
another key than the one named), turn a list of one into a scalar, and make empty elements `None`.
`parse` keeps spaces and drops namespace prefixes and `xmlns` declarations, so that a document reads
the same with the S3 namespace, with a prefix, or with none. The readers (`text`, `child`,
`children`, …) look into the `Node` that it returns and answer the same for one element as for a
list, and for `<a/>` as for `<a></a>`. Elements nobody asks for are tolerated, as S3 does. An
attribute is an entry named `@` and its local name.

What a hostile document can cost is bounded before expat sees it (bytes, tags, elements: all
counted in C) and while it is read (depth, distinct names, attributes). DTDs, and with
them entities, and processing instructions are refused; so is every encoding but UTF-8, since the
counts are of UTF-8 bytes. The buffer is parsed in one piece: expat 2.5 is quadratic on a large
attribute that comes in many.

**Writing.** `Writer` joins strings once. A reply must re-parse whatever a key contains: `\\r` is
written as `&#13;` (a parser would turn it into a newline), and a character that XML 1.0 cannot
carry at all becomes U+FFFD. A client that wants such keys exactly asks for `encoding-type=url`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from typing import Any, NoReturn
from urllib.parse import quote
from xml.parsers import expat

import xmltodict

from s3gw import limits
from s3gw.errors import MalformedXML, MaxMessageLengthExceeded, MissingRequestBodyError

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

# Values are `str`, `Node`, None (an empty element), or lists of these: ask the readers below.
Node = dict[str, Any]

WHITESPACE = " \t\r\n"


def parse(
    body: bytes,
    *,
    limit: int,
    root: str | Collection[str],
    lists: Collection[str] = (),
) -> Node:
    """The content of the document's root element, which must be (one of) `root`.

    `limit` is in bytes. Elements named in `lists` are lists even when there is one. Raises
    MissingRequestBodyError, MaxMessageLengthExceeded or MalformedXML.
    """
    if not body:
        raise MissingRequestBodyError
    if len(body) > limit:
        raise MaxMessageLengthExceeded(MaxMessageLengthBytes=str(limit))
    tags = body.count(b"<")
    if tags > limits.XML_TAGS_MAX or tags - body.count(b"</") > limits.XML_ELEMENTS_MAX:
        raise MalformedXML("The XML you provided has too many elements")
    if b"\0" in body:  # UTF-16, which expat would recognise in spite of what it is told below
        raise MalformedXML("The XML you provided is not encoded in UTF-8")
    try:
        document: Node = xmltodict.parse(
            body,
            expat=_GuardedExpat,
            strip_whitespace=False,
            force_list=frozenset(lists),
        )
    except expat.ExpatError as error:
        raise MalformedXML from error
    ((name, content),) = document.items()
    if name not in ((root,) if isinstance(root, str) else root):
        raise MalformedXML
    return _node(content[0] if isinstance(content, list) else content)


async def parse_off_loop(
    body: bytes,
    *,
    limit: int,
    root: str | Collection[str],
    lists: Collection[str] = (),
) -> Node:
    """`parse`, in a thread when the document is large enough to be felt by other requests."""
    if len(body) <= limits.XML_ON_LOOP_BYTES_MAX:
        return parse(body, limit=limit, root=root, lists=lists)
    return await asyncio.to_thread(parse, body, limit=limit, root=root, lists=lists)


class _GuardedParser:
    """An expat parser with the attributes that xmltodict sets, and our refusals in front."""

    StartElementHandler: Callable[[str, list[str]], None]
    EndElementHandler: Callable[[str], None]
    CharacterDataHandler: Callable[[str], None]

    def Parse(self, document: bytes, final: bool) -> None:
        parser = expat.ParserCreate("utf-8")
        parser.ordered_attributes = True
        parser.buffer_text = True
        parser.CharacterDataHandler = self.CharacterDataHandler
        parser.XmlDeclHandler = _check_declaration
        parser.StartDoctypeDeclHandler = _refuse
        parser.ProcessingInstructionHandler = _refuse
        begin, finish = self.StartElementHandler, self.EndElementHandler
        local_names: dict[str, str] = {}
        depth = attribute_words = 0

        def start(name: str, attributes: list[str]) -> None:
            nonlocal depth, attribute_words
            depth += 1
            local = local_names.get(name)
            if local is None:
                local = local_names[name] = name.rpartition(":")[2]
                if len(local_names) > limits.XML_NAMES_MAX:
                    raise MalformedXML("The XML you provided has too many element names")
            if depth > limits.XML_DEPTH_MAX:
                raise MalformedXML("The XML you provided is nested too deeply")
            if attributes:
                attribute_words += len(attributes)
                if attribute_words > 2 * limits.XML_ATTRIBUTES_MAX:
                    raise MalformedXML("The XML you provided has too many attributes")
                attributes = _local_attributes(attributes)
            begin(local, attributes)

        def end(name: str) -> None:
            nonlocal depth
            depth -= 1
            finish(local_names[name])

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.Parse(document, final)


class _GuardedExpat:
    """What xmltodict takes for the expat module."""

    @staticmethod
    def ParserCreate(_encoding: str | None, _separator: str | None) -> _GuardedParser:
        return _GuardedParser()


def _local_attributes(attributes: list[str]) -> list[str]:
    """[name, value, …] without `xmlns` declarations and prefixes: `xsi:type` becomes `type`."""
    kept: list[str] = []
    for name, value in zip(attributes[0::2], attributes[1::2], strict=True):
        if not name.startswith("xmlns"):
            kept += (name.rpartition(":")[2], value)
    return kept


def _check_declaration(_version: str, encoding: str | None, _standalone: int) -> None:
    if encoding is not None and encoding.upper() not in ("UTF-8", "UTF8"):
        raise MalformedXML("The XML you provided is not encoded in UTF-8")


def _refuse(*_arguments: object) -> NoReturn:
    raise MalformedXML("DOCTYPE declarations and processing instructions are not accepted")


# Readers. An element that is present but of another form than asked for is MalformedXML.


def _node(value: Any) -> Node:
    if isinstance(value, dict):
        return value
    if value is None or (isinstance(value, str) and not value.strip(WHITESPACE)):
        return {}
    raise MalformedXML


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, dict) and all(name[0] in "@#" for name in value):
        text = value.get("#text", "")
        if isinstance(text, str):
            return text
    raise MalformedXML


def _items(node: Node, name: str) -> list[Any]:
    if name not in node:
        return []
    value = node[name]
    return value if isinstance(value, list) else [value]


def optional_text(node: Node, name: str) -> str | None:
    """The text of the child `name`, exactly, or None when there is no such child."""
    value = node.get(name)
    if isinstance(value, str):
        return value
    values = _items(node, name)
    if len(values) > 1:
        raise MalformedXML
    return _text(values[0]) if values else None


def text(node: Node, name: str) -> str:
    """The text of the child `name`, which must be there; it may be empty."""
    found = optional_text(node, name)
    if found is None:
        raise MalformedXML
    return found


def texts(node: Node, name: str) -> list[str]:
    """The texts of all children `name`, in order."""
    return [_text(value) for value in _items(node, name)]


def child(node: Node, name: str) -> Node | None:
    """The one child element `name` as a Node ({} when it is empty), or None."""
    values = _items(node, name)
    if len(values) > 1:
        raise MalformedXML
    return _node(values[0]) if values else None


def children(node: Node, name: str) -> list[Node]:
    """All child elements `name`, in order."""
    return [_node(value) for value in _items(node, name)]


def optional_integer(node: Node, name: str) -> int | None:
    """The decimal integer in the child `name`, spaces around it ignored, or None."""
    found = optional_text(node, name)
    if found is None:
        return None
    digits = found.strip(WHITESPACE)
    if not (digits.isascii() and digits.removeprefix("-").isdecimal() and len(digits) <= 20):
        raise MalformedXML
    return int(digits)


def integer(node: Node, name: str) -> int:
    """The decimal integer in the child `name`, which must be there."""
    found = optional_integer(node, name)
    if found is None:
        raise MalformedXML
    return found


def boolean(node: Node, name: str, default: bool = False) -> bool:
    """`true` or `false` (any case, as S3 reads it) in the child `name`, or the default."""
    found = optional_text(node, name)
    if found is None:
        return default
    match found.strip(WHITESPACE).lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise MalformedXML


# Writing.

_SPECIAL = re.compile("[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}


def _escape_one(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[0], "\ufffd")


def escape(value: str) -> str:
    """`value` as element content. Almost all are plain: five scans in C, no regex, no copy."""
    if value.isprintable() and "&" not in value and "<" not in value and ">" not in value:
        return value
    return _SPECIAL.sub(_escape_one, value)


def url_encode(value: str) -> str:
    """`value` as listings carry it under `encoding-type=url`: percent-encoded UTF-8 but for `/`.

    A space is %20, never `+`, so that clients which undo `+` and those which do not agree.
    """
    return quote(value, safe="/")


class Writer:
    """A document under construction; `open` and `close` must be balanced by the caller.

    For pages of many rows, `raw` takes a string that the caller built with `escape`.
    """

    __slots__ = ("_parts", "_root")

    def __init__(self, root: str, namespace: str = NAMESPACE) -> None:
        """Starts the document with its root element; `namespace` "" leaves `xmlns` out."""
        self._root = root
        self._parts = [f'<{root} xmlns="{namespace}">' if namespace else f"<{root}>"]

    def open(self, name: str) -> None:
        """`<name>`"""
        self._parts.append(f"<{name}>")

    def close(self, name: str) -> None:
        """`</name>`"""
        self._parts.append(f"</{name}>")

    def element(self, name: str, value: str | int) -> None:
        """`<name>value</name>`, escaped."""
        if isinstance(value, str):
            value = escape(value)
        self._parts.append(f"<{name}>{value}</{name}>")

    def optional(self, name: str, value: str | int | None) -> None:
        """`element`, unless `value` is None."""
        if value is not None:
            self.element(name, value)

    def flag(self, name: str, value: bool) -> None:
        """`<name>true</name>` or `<name>false</name>`"""
        self._parts.append(f"<{name}>{'true' if value else 'false'}</{name}>")

    def raw(self, markup: str) -> None:
        """`markup`, as it is."""
        self._parts.append(markup)

    def finish(self, *, declaration: bool = True) -> bytes:
        """The document; without its declaration when that was sent ahead of it."""
        head = DECLARATION if declaration else ""
        return f"{head}{''.join(self._parts)}</{self._root}>".encode()
