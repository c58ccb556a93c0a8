"""One transcript, its tokens coloured by what a probe reads at them. No torch.

The HTML stands alone: what a person sees without JavaScript is one layer and emotion; with it they choose.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emoprobe.emotions import NEGATIVE
from emoprobe.errors import UserError
from emoprobe.viewing import palette
from emoprobe.viewing.text import escape, script_json, shorten, visible

MAX_TOKENS = 6_000
"""Tokens of a transcript that are shown; more would make a page that no browser scrolls."""
MAX_PIECE = 400
"""Characters of one token that are shown."""
_MISSING = -128
_MAX_TINT = 0.78


@dataclass(frozen=True)
class TokenColours:
    """z of every token of one transcript, as one or more sets of weights read the same ids.

    `z[reader]` is float `[layer, emotion, token]`, in standard deviations of the neutral baseline; NaN
    where a token has no baseline to be compared with (headers, end marks). `pieces` joined are the
    transcript's text; `turn` is 1-based. `kind` is that of a `Span`; the token from which a reply is
    about to be written (the last header token before it) has z against the `pre_reply` baseline.
    Raises ValueError where lengths or shapes disagree.
    """

    transcript_id: str
    pieces: Sequence[str]
    turn: Sequence[int]
    role: Sequence[str]
    kind: Sequence[str]
    layers: Sequence[int]
    emotions: Sequence[str]
    z: Mapping[str, NDArray[np.floating[Any]]] = field(repr=False)

    def __post_init__(self) -> None:
        n = len(self.pieces)
        for name in ("turn", "role", "kind"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{len(getattr(self, name))} values of {name} for {n} tokens")
        shape = (len(self.layers), len(self.emotions), n)
        if not self.z:
            raise ValueError("no readings: z is empty")
        for reader, values in self.z.items():
            if np.shape(values) != shape:
                raise ValueError(f"z['{reader}'] is {np.shape(values)}, not [layer, emotion, token] {shape}")

    @property
    def readers(self) -> tuple[str, ...]:
        """`base` and the adapters, in the order given."""
        return tuple(self.z)

    def limit(self, emotion: str) -> float:
        """The |z| of the strongest tint of an emotion, the same for all layers and readers.

        The 99th percentile over content tokens in halves, at least 1.
        """
        content = [i for i, kind in enumerate(self.kind) if kind == "content"]
        e = list(self.emotions).index(emotion)
        values = np.concatenate([np.abs(np.asarray(v)[:, e, content]).ravel() for v in self.z.values()])
        values = values[np.isfinite(values)]
        return max(1.0, float(np.ceil(2 * np.percentile(values, 99)) / 2)) if len(values) else 1.0


def html(
    tokens: TokenColours,
    layer: int | None = None,
    emotion: str | None = None,
    reader: str | None = None,
    notes: Mapping[int, str] | None = None,
    uid: str = "tokens",
) -> str:
    """The transcript as a fragment of HTML with its controls, coloured for one layer, emotion and reader.

    Without a choice: the middle layer, `negative` where it is there, the first reader. `notes[turn]` is
    shown beside the reply of that turn. `uid` makes the ids of this fragment its own. The fragment needs
    `style()` and `script()` once on its page. Raises UserError for a layer, emotion or reader that was
    not read.
    """
    layer, emotion, reader = choose(tokens, layer, emotion, reader)
    limit = tokens.limit(emotion)
    z = np.asarray(tokens.z[reader])[list(tokens.layers).index(layer), list(tokens.emotions).index(emotion)]
    left_out = len(tokens.pieces) - MAX_TOKENS
    more = f'<p class="ep-more">{left_out:,} more tokens are not shown.</p>' if left_out > 0 else ""
    return (
        f'<div class="ep-tokens" id="{escape(uid)}">'
        f"{_controls(tokens, layer, emotion, reader, uid)}"
        f"{_legend(limit)}"
        f'<div class="ep-turns">{"".join(_turns(tokens, z, limit, notes or {}))}</div>{more}'
        '<div class="ep-tip" role="status" hidden></div>'
        f'<script type="application/json" class="ep-data">{script_json(_data(tokens))}</script>'
        "</div>"
    )


def choose(
    tokens: TokenColours, layer: int | None, emotion: str | None, reader: str | None
) -> tuple[int, str, str]:
    """What is shown first where a choice is None: the middle layer, `negative`, the first reader.

    Raises UserError for what was not read.
    """
    emotions = tokens.emotions
    return (
        _known("layer", layer, tokens.layers, tokens.layers[len(tokens.layers) // 2]),
        _known("emotion", emotion, emotions, NEGATIVE if NEGATIVE in emotions else emotions[0]),
        _known("reader", reader, tokens.readers, tokens.readers[0]),
    )


def style() -> str:
    """The CSS that `html` needs, once per page."""
    hot, cold = (" ".join(map(str, rgb)) for rgb in (palette.HOT_RGB, palette.COLD_RGB))
    return f".ep-tokens{{--ep-hot:{hot};--ep-cold:{cold}}}\n{_asset('tokens.css')}"


def script() -> str:
    """The JavaScript that `html` needs, once per page, after it."""
    return _asset("tokens.js")


def tint(z: float, limit: float) -> str:
    """The CSS background of a token; empty for no reading and for a z that shows no colour."""
    if not np.isfinite(z):
        return ""
    alpha = min(abs(z) / limit, 1.0) * _MAX_TINT
    return f"rgb(var(--ep-{'hot' if z > 0 else 'cold'}) / {alpha:.2f})" if alpha >= 0.005 else ""


T = TypeVar("T", int, str)


def _known(name: str, wanted: T | None, known: Sequence[T], default: T) -> T:
    if wanted is None:
        return default
    if wanted not in known:
        raise UserError(f"{name} '{wanted}' was not read; known: {', '.join(map(str, known))}")
    return wanted


def _controls(tokens: TokenColours, layer: int, emotion: str, reader: str, uid: str) -> str:
    readers = "".join(
        f'<label><input type="radio" name="{escape(uid)}-reader" value="{i}"'
        f"{' checked' if name == reader else ''}><span>{escape(name)}</span></label>"
        for i, name in enumerate(tokens.readers)
    )
    return (
        '<div class="ep-controls">'
        f'<fieldset class="ep-readers"><legend>read by</legend>{readers}</fieldset>'
        f"{_select('layer', tokens.layers, layer)}{_select('emotion', tokens.emotions, emotion)}</div>"
    )


def _select(key: str, options: Sequence[Any], chosen: Any) -> str:
    rows = "".join(
        f'<option value="{i}"{" selected" if option == chosen else ""}>{escape(str(option))}</option>'
        for i, option in enumerate(options)
    )
    return f'<label>{key} <select data-key="{key}" autocomplete="off">{rows}</select></label>'


def _legend(limit: float) -> str:
    return (
        '<div class="ep-legend" aria-hidden="true">'
        f"<span>≤ −<b>{limit:g}</b></span><i></i><span>≥ <b>{limit:g}</b></span>"
        "<span>z, standard deviations of the neutral baseline</span></div>"
    )


def _turns(tokens: TokenColours, z: NDArray[Any], limit: float, notes: Mapping[int, str]) -> Iterator[str]:
    indices = range(min(len(tokens.pieces), MAX_TOKENS))
    for (turn, role), group in groupby(indices, lambda i: (tokens.turn[i], tokens.role[i])):
        members = list(group)
        note = (
            f'<span class="ep-note">{escape(notes[turn])}</span>'
            if role == "assistant" and turn in notes
            else ""
        )
        spans = "".join(_token(tokens, i, z[i], limit) for i in members)
        yield (
            f'<section class="ep-turn ep-{escape(role)}"><h4>{escape(role)} <span>turn {int(turn)}</span>'
            f'{note}<span class="ep-mean" data-from="{members[0]}" data-to="{members[-1] + 1}"></span></h4>'
            f'<p dir="auto">{spans}</p></section>'
        )


def _token(tokens: TokenColours, i: int, z: float, limit: float) -> str:
    background = tint(z, limit)
    colour = f' style="background:{background}"' if background else ""
    content = tokens.kind[i] == "content"
    kind, end = ("", "\n") if content else (" ep-mark", "")
    lines = escape(shorten(tokens.pieces[i], MAX_PIECE)).split("\n")
    text = f'<b class="ep-nl">↵</b>{end}'.join(lines)
    return f'<span class="ep-t{kind}" data-i="{i}"{colour}>{text}</span>'


def _data(tokens: TokenColours) -> dict[str, Any]:
    """z as bytes of `step` each, so that a page stays small: 108 kB per reader, 12 layers x 1,000 tokens."""
    n = min(len(tokens.pieces), MAX_TOKENS)
    strongest = max(float(np.nanmax(np.abs(v), initial=0.0)) for v in map(np.asarray, tokens.z.values()))
    step = max(0.02, strongest / 127)
    packed = {}
    for reader, values in tokens.z.items():
        steps = np.rint(np.nan_to_num(np.asarray(values, dtype=np.float64)[..., :n]) / step)
        steps[~np.isfinite(np.asarray(values)[..., :n])] = _MISSING
        packed[reader] = base64.b64encode(steps.astype(np.int8).tobytes()).decode("ascii")
    return {
        "n": n,
        "step": step,
        "limits": [tokens.limit(emotion) for emotion in tokens.emotions],
        "maxTint": _MAX_TINT,
        "readers": [visible(name) for name in tokens.readers],
        "layers": list(tokens.layers),
        "emotions": [visible(name) for name in tokens.emotions],
        "kind": list(tokens.kind[:n]),
        "z": [packed[name] for name in tokens.readers],
    }


def _asset(name: str) -> str:
    return resources.files("emoprobe.viewing").joinpath("assets", name).read_text("utf-8")
