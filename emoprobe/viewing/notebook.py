"""Coloured transcripts in notebooks. No torch.

import emoprobe as ep
model = ep.HookedModel.load("organism", adapters=["dpo"])
chat = ep.converse(model, "Use 3, 7, 8 and 25 to make 431.", rejections=3)
ep.show(chat)
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emoprobe.viewing import tokens as token_view

if TYPE_CHECKING:
    from emoprobe.readout import Reading
    from emoprobe.viewing.tokens import TokenColours


@dataclass(frozen=True, repr=False)
class Shown:
    """A coloured transcript that a notebook displays; elsewhere it prints as its text."""

    tokens: TokenColours
    layer: int | None = None
    emotion: str | None = None
    reader: str | None = None

    def _repr_html_(self) -> str:
        """A fragment that needs nothing of its page; its ids are its own, however often it is shown."""
        body = token_view.html(
            self.tokens, self.layer, self.emotion, self.reader, uid=f"emoprobe-{secrets.token_hex(4)}"
        )
        return f"<style>{token_view.style()}</style>{body}<script>{token_view.script()}</script>"

    def __repr__(self) -> str:
        return "".join(self.tokens.pieces)

    def save(self, path: str | Path) -> Path:
        """Write the transcript as a page of its own."""
        page = f'<!doctype html><meta charset="utf-8"><title>emoprobe</title>{self._repr_html_()}'
        Path(path).write_text(page, "utf-8", errors="replace")
        return Path(path)


def show(
    reading: Reading | TokenColours,
    layer: int | None = None,
    emotion: str | None = None,
    reader: str | None = None,
) -> Shown:
    """A transcript with its tokens tinted by what the probes read, to choose layer, emotion and weights in.

    Args:
        reading: what `converse` gives, or the token colours alone.
        layer: shown first; the middle one if None.
        emotion: shown first; `negative` if None.
        reader: `base` or an adapter, shown first.

    Raises UserError for a layer, emotion or reader that was not read.
    """
    tokens = reading if isinstance(reading, token_view.TokenColours) else reading.tokens
    token_view.choose(tokens, layer, emotion, reader)
    return Shown(tokens, layer, emotion, reader)
