"""Percent-decoding, once and strictly (RFC 3986 §2.1)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def decode_form(text: str) -> str:
    """The text in a form-encoded name or value, where `+` is a space.

    `text` is a header's latin-1 characters. Raises ValueError for a broken escape or for bytes
    that are not UTF-8.
    """
    raw = text.encode("latin-1").replace(b"+", b" ")
    if BAD_ESCAPE.search(raw):
        raise ValueError("broken percent escape")
    return unquote_to_bytes(raw).decode()
