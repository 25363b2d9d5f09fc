"""Bucket documents: the XML configurations that a bucket keeps and gives back.

A document is described once, as a tree of shapes; reading, validation and writing follow from it.

    shape       value
    Text        str, of a length and, maybe, only of certain characters
    Choice      str, one of a few
    Integer     int, within bounds
    Flag        bool
    Structure   dict of its elements by name; an element that may repeat is a list

What is stored is the canonical form: every element in the order of its shape, and nothing else, so
that a document read and written again is the same bytes. An element that no shape knows is refused
(MalformedXML, as S3's schema does): to drop it would be to promise what nobody keeps.

What a shape cannot express is the document's `check`, with the error codes that S3 was seen to
send.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from s3gw import limits
from s3gw.errors import MalformedXML, MaxMessageLengthExceeded
from s3gw.wire import xml
from s3gw.wire.xml import Node, Writer

Value = dict[str, Any]
"""A structure as read: element name to str, int, bool, Value, or a list of these."""

INTEGER_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Text:
    """Characters, exactly as sent."""

    least: int = 0
    most: int = limits.DOCUMENT_BYTES_MAX

    def read(self, node: Node, name: str) -> list[Any]:
        found = xml.texts(node, name)
        if not all(self.least <= len(text) <= self.most for text in found):
            raise MalformedXML
        return found

    def write(self, writer: Writer, name: str, value: Any) -> None:
        writer.element(name, value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few texts."""

    options: tuple[str, ...]

    def read(self, node: Node, name: str) -> list[Any]:
        found = xml.texts(node, name)
        if not all(text in self.options for text in found):
            raise MalformedXML
        return found

    def write(self, writer: Writer, name: str, value: Any) -> None:
        writer.element(name, value)


@dataclass(frozen=True, slots=True)
class Integer:
    """A decimal number."""

    least: int = 0
    most: int = INTEGER_MAX

    def read(self, node: Node, name: str) -> list[Any]:
        found = [xml.integer({name: text}, name) for text in xml.texts(node, name)]
        if not all(self.least <= number <= self.most for number in found):
            raise MalformedXML
        return found

    def write(self, writer: Writer, name: str, value: Any) -> None:
        writer.element(name, value)


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`."""

    def read(self, node: Node, name: str) -> list[Any]:
        return [xml.boolean({name: text}, name) for text in xml.texts(node, name)]

    def write(self, writer: Writer, name: str, value: Any) -> None:
        writer.flag(name, value)


@dataclass(frozen=True, slots=True)
class Element:
    """A child of a structure, there between `least` and `most` times. With `listed` its value is
    a list, however often it is there."""

    name: str
    shape: Shape
    least: int = 0
    most: int = 1
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Structure:
    """Elements in any order; with `union`, exactly one of them. The content of an `opaque` one is
    not looked at: for what is refused whatever it says."""

    elements: tuple[Element, ...]
    union: bool = False
    opaque: bool = False
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(e.name for e in self.elements))

    def read(self, node: Node, name: str) -> list[Any]:
        if self.opaque:
            return [{}] * len(xml.children(node, name))
        return [self.value(child) for child in xml.children(node, name)]

    def value(self, node: Node) -> Value:
        """The content of one element. Raises MalformedXML."""
        for name, content in node.items():
            stray = name == "#text" and isinstance(content, str) and content.strip(xml.WHITESPACE)
            if stray or (name[0] not in "@#" and name not in self.names):
                raise MalformedXML
        value: Value = {}
        for element in self.elements:
            found = element.shape.read(node, element.name)
            if not element.least <= len(found) <= element.most:
                raise MalformedXML
            if found:
                value[element.name] = found if element.listed else found[0]
        if self.union and len(value) != 1:
            raise MalformedXML
        return value

    def write(self, writer: Writer, name: str, value: Any) -> None:
        writer.open(name)
        self.write_content(writer, value)
        writer.close(name)

    def write_content(self, writer: Writer, value: Value) -> None:
        """The elements of `value`, in the order of the shape."""
        for element in self.elements:
            if element.name not in value:
                continue
            content = value[element.name]
            for one in content if element.listed else (content,):
                element.shape.write(writer, element.name, one)


Shape = Text | Choice | Integer | Flag | Structure


def required(name: str, shape: Shape) -> Element:
    """An element that must be there, once."""
    return Element(name, shape, least=1)


def optional(name: str, shape: Shape) -> Element:
    """An element that may be there, once."""
    return Element(name, shape)


def several(name: str, shape: Shape, *, least: int = 0, most: int = INTEGER_MAX) -> Element:
    """An element that may repeat; its value is a list."""
    return Element(name, shape, least, most, listed=True)


@dataclass(frozen=True, slots=True)
class Document:
    """A kind of bucket configuration. `name` is the key it is stored under, `root` the element
    that it is sent in; `check` raises the S3Error of a document that its shape alone allows. It
    may have `bytes_max` bytes, as sent and as stored."""

    name: str
    root: str
    shape: Structure
    check: Callable[[Value], None] = lambda value: None
    bytes_max: int = limits.DOCUMENT_BYTES_MAX

    def parse(self, body: bytes) -> Value:
        """A document as sent, read and validated. Raises S3Error."""
        node = xml.parse(body, limit=self.bytes_max, root=self.root)
        value = self.shape.value(node)
        self.check(value)
        return value

    def render(self, value: Value) -> bytes:
        """The canonical form. Raises MaxMessageLengthExceeded: escapes can make it longer."""
        writer = Writer(self.root)
        self.shape.write_content(writer, value)
        rendered = writer.finish()
        if len(rendered) > self.bytes_max:
            raise MaxMessageLengthExceeded(MaxMessageLengthBytes=str(self.bytes_max))
        return rendered

    def fragment(self, value: Value) -> str:
        """The canonical form as one element of a larger document."""
        writer = Writer(self.root, namespace="")
        self.shape.write_content(writer, value)
        return writer.finish(declaration=False).decode()

    def read_stored(self, stored: bytes) -> Value:
        """The value of a canonical form."""
        return self.shape.value(xml.parse(stored, limit=self.bytes_max, root=self.root))
