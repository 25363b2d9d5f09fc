"""Texts of policies with wildcards and variables: `arn:aws:s3:::b/${aws:username}/*`.

`*` stands for any run of characters, `?` for one; `${key}` for the value of a condition key, with
`${key, 'default'}` where the request may not have it, and `${*}`, `${?}`, `${$}` for these very
characters. What a variable stands for is plain text: a user named `*` matches no other. (IAM User
Guide, "IAM policy elements: Variables and tags".)

Matching costs no more than pattern times text, whatever either contains. A pattern of plain pieces
between stars is found piece by piece. One with `?` is run as an automaton whose states are the bits
of one integer: bit i says that the first i tokens are matched. Nothing ever backtracks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

Values = Mapping[str, tuple[str, ...]]
"""The condition keys of a request, in lower case, and the values of each."""


class PolicyError(ValueError):
    """A policy cannot be accepted; the message says why, in the words of AWS where it has some."""


class Wild(Enum):
    """What stands for other characters."""

    ONE = "?"
    RUN = "*"


@dataclass(frozen=True, slots=True)
class Variable:
    """`${key}`; `key` in lower case."""

    key: str
    default: str | None


Token = str | Wild | Variable

NAMED = re.compile(r"\s*([A-Za-z][\w.:/+=@-]*)\s*(?:,\s*'([^']*)'\s*)?", re.ASCII)
PLAIN = frozenset("*?$")


class Glob:
    """A pattern without variables. `tokens` are plain texts and wildcards."""

    __slots__ = ("_automaton", "_pieces", "_tokens")

    def __init__(self, tokens: Sequence[str | Wild]) -> None:
        self._tokens = tuple(tokens)
        self._pieces: tuple[str, ...] | None = None
        self._automaton: tuple[dict[str, int], int, int, int] | None = None
        if Wild.ONE not in self._tokens:
            pieces = [""]
            for token in self._tokens:
                if isinstance(token, str):
                    pieces[-1] += token
                else:
                    pieces.append("")
            self._pieces = tuple(pieces)

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` is one of those that the pattern stands for."""
        if self._pieces is None:
            *_, final = self._built()
            return bool(self._run(text) & final)
        first, *rest = self._pieces
        if not rest:
            return text == first
        last = rest.pop()
        end = len(text) - len(last)
        if len(first) > end or not (text.startswith(first) and text.endswith(last)):
            return False
        position = len(first)
        for piece in rest:
            found = text.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True

    def matches_more_than(self, prefix: str) -> bool:
        """Whether the pattern stands for some text that is longer than `prefix` and starts so."""
        _, loops, _, final = self._built()
        states = self._run(prefix)
        return bool(states & ~final or states & final & loops)

    def _built(self) -> tuple[dict[str, int], int, int, int]:
        """(tokens that match a character, states with a star, those with a `?` ahead, the end)"""
        if self._automaton is None:
            masks: dict[str, int] = {}
            loops = ones = 0
            bit = 1
            for token in self._tokens:
                if token is Wild.RUN:
                    loops |= bit
                elif token is Wild.ONE:
                    ones |= bit
                    bit <<= 1
                else:
                    assert isinstance(token, str)
                    for character in token:
                        masks[character] = masks.get(character, 0) | bit
                        bit <<= 1
            self._automaton = (masks, loops, ones, bit)
        return self._automaton

    def _run(self, text: str) -> int:
        masks, loops, ones, _ = self._built()
        states = 1
        for character in text:
            states = ((states & (masks.get(character, 0) | ones)) << 1) | (states & loops)
            if not states:
                break
        return states


class Pattern:
    """A text of a policy, understood. `text` is as written."""

    __slots__ = ("_fold", "_glob", "_tokens", "fixed", "text")

    def __init__(
        self,
        text: str,
        *,
        variables: bool,
        wildcards: bool = True,
        fold: Callable[[str], str] = str,
    ) -> None:
        """`fold` is applied to both sides before they are compared. Raises PolicyError."""
        self.text = text
        self._fold = fold
        self._tokens = _tokens(text, variables=variables, wildcards=wildcards)
        self.fixed = all(isinstance(token, str) for token in self._tokens)
        self._glob = None
        if not any(isinstance(token, Variable) for token in self._tokens):
            self._glob = self._resolved({})

    def matches(self, text: str, values: Values) -> bool:
        """Whether `text` matches; never when a variable has no value."""
        glob = self._glob or self._resolved(values)
        return glob is not None and glob.matches(self._fold(text))

    def split(self, separator: str, most: int) -> list[str]:
        """The text split at separators outside variables."""
        parts = [""]
        position = 0
        for start, end in _variables(self.text):
            self._split_plain(self.text[position:start], separator, most, parts)
            parts[-1] += self.text[start:end]
            position = end
        self._split_plain(self.text[position:], separator, most, parts)
        return parts

    @staticmethod
    def _split_plain(text: str, separator: str, most: int, parts: list[str]) -> None:
        first, *rest = text.split(separator, most - len(parts) + 1)
        parts[-1] += first
        parts += rest

    def widest(self) -> Glob:
        """The pattern with every variable taken for any text."""
        return Glob([Wild.RUN if isinstance(t, Variable) else t for t in self._tokens])

    def _resolved(self, values: Values) -> Glob | None:
        tokens: list[str | Wild] = []
        for token in self._tokens:
            if isinstance(token, Variable):
                found = values.get(token.key)
                text = found[0] if found is not None and len(found) == 1 else token.default
                if text is None:
                    return None
                tokens.append(self._fold(text))
            else:
                tokens.append(self._fold(token) if isinstance(token, str) else token)
        return Glob(tokens)


def _variables(text: str) -> Iterator[tuple[int, int]]:
    """Where variables begin and end. Each character is looked at once: a regular expression would
    look for the end of every one that is not closed."""
    start = text.find("${")
    while start >= 0:
        end = text.find("}", start) + 1
        if not end:
            return
        yield start, end
        start = text.find("${", end)


def _tokens(text: str, *, variables: bool, wildcards: bool) -> tuple[Token, ...]:
    tokens: list[Token] = []
    position = 0
    for start, end in _variables(text) if variables else ():
        tokens += _plain(text[position:start], wildcards)
        tokens.append(_variable(text[start + 2 : end - 1]))
        position = end
    tail = text[position:]
    if variables and "${" in tail:
        raise PolicyError("Invalid policy variable: '${' is not closed")
    tokens += _plain(tail, wildcards)
    return tuple(tokens)


def _plain(text: str, wildcards: bool) -> list[Token]:
    if not wildcards:
        return [text] if text else []
    pieces = re.split(r"([*?])", text)
    return [Wild(piece) if piece in ("*", "?") else piece for piece in pieces if piece]


def _variable(inner: str) -> Token:
    if inner in PLAIN:
        return inner
    named = NAMED.fullmatch(inner)
    if named is None:
        raise PolicyError("Invalid policy variable: ${" + inner + "}")
    return Variable(named[1].lower(), named[2])
