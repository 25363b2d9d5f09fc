"""Wildcards and variables of policies, against a reference and against hostile patterns."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.auth.patterns import Pattern, PolicyError

VALUES = {
    "aws:username": ("ann",),
    "s3:prefix": ("a*",),
    "aws:tagkeys": ("one", "two"),
}

ALPHABET = "ab*?"


def reference(pattern: str, text: str) -> bool:
    wild = {"*": ".*", "?": "."}
    regex = "".join(wild.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(regex, text, re.DOTALL) is not None


@given(st.text(ALPHABET, max_size=8), st.text("ab\n", max_size=10))
def test_wildcards_match_as_the_reference_does(pattern: str, text: str) -> None:
    assert Pattern(pattern, variables=False).matches(text, {}) is reference(pattern, text)


@given(st.text(ALPHABET, max_size=6), st.text("ab", max_size=5), st.text("ab", min_size=1))
def test_what_matches_more_than_a_prefix_is_known(pattern: str, prefix: str, rest: str) -> None:
    widest = Pattern(pattern, variables=False).widest()
    if reference(pattern, prefix + rest):
        assert widest.matches_more_than(prefix)


@given(st.text(ALPHABET, max_size=6), st.text("ab", max_size=4))
def test_what_is_said_to_match_more_does(pattern: str, prefix: str) -> None:
    if Pattern(pattern, variables=False).widest().matches_more_than(prefix):
        endings = ["".join(e) for e in _words("ab", 7)]
        assert any(reference(pattern, prefix + ending) for ending in endings if ending)


def _words(letters: str, most: int) -> list[str]:
    words = [""]
    for word in words:
        if len(word) < most:
            words += [word + letter for letter in letters]
    return words


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("home/${aws:username}/*", "home/ann/x", True),
        ("home/${aws:username}/*", "home/bob/x", False),
        ("home/${AWS:UserName}/*", "home/ann/x", True),
        ("home/${ aws:username }/*", "home/ann/x", True),
        ("${aws:userid}", "", False),
        ("${aws:userid, 'nobody'}", "nobody", True),
        ("${aws:userid, ''}x", "x", True),
        ("${aws:username, 'nobody'}", "nobody", False),
        ("${s3:prefix}", "a*", True),
        ("${s3:prefix}", "abc", False),
        ("${s3:prefix}?", "a*c", True),
        ("${aws:tagkeys}", "one", False),
        ("${*}", "*", True),
        ("${*}", "x", False),
        ("${?}${$}", "?$", True),
        ("a$b", "a$b", True),
    ],
)
def test_variables_stand_for_plain_text(pattern: str, text: str, matches: bool) -> None:
    assert Pattern(pattern, variables=True).matches(text, VALUES) is matches


def test_without_variables_the_marks_are_plain() -> None:
    pattern = Pattern("${aws:username}", variables=False)
    assert pattern.matches("${aws:username}", VALUES)
    assert not pattern.matches("ann", VALUES)


@pytest.mark.parametrize("text", ["${", "a${aws:username", "${}", "${a b}", "${a, b}", "${a, 'b}"])
def test_a_broken_variable_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        Pattern(text, variables=True)


@pytest.mark.parametrize("piece", ["a*", "*a", "a?*", "?*", "*?a*", "**"])
def test_no_pattern_takes_long(piece: str) -> None:
    pattern = Pattern(piece * (20 * 1024 // len(piece)) + "b", variables=False)
    started = time.process_time()
    assert not pattern.matches("a" * 1100, {})
    assert time.process_time() - started < 2
