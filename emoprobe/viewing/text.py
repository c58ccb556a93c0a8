"""Text that a model wrote, made safe to show: it is data, never markup. No torch."""

from __future__ import annotations

import html
import json
import re
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and newline
    "\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff"  # they reorder or break a line unseen
    "\ud800-\udfff\ufffe\uffff]"  # what UTF-8 cannot hold
)


def visible(text: str) -> str:
    """Characters that act unseen (controls, bidi overrides, separators) as `⟨U+202E⟩`; the rest as it is."""
    return _UNSAFE.sub(lambda m: f"⟨U+{ord(m.group()):04X}⟩", text)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters and a note of how many were left out."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def escape(text: str) -> str:
    """Visible text as HTML, safe inside elements and quoted attributes."""
    return html.escape(visible(text), quote=True)


def script_json(value: Any) -> str:
    """JSON that is safe inside `<script type="application/json">`: no text in it can close the element.

    Raises ValueError for NaN or infinity.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
