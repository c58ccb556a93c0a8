"""Which decoder layers a user means. No torch."""

from __future__ import annotations

import re

from emoprobe.errors import UserError

_FORM = re.compile(r"(\d+)(?:(-)(\d*))?")


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """`"all"`, `"30-35"` (both ends included), `"40-"`, `"3,5,7"` or a mixture, as sorted layers, 0-based.

    Raises UserError for what is not of this form, runs backwards or lies beyond the last layer.
    """
    last = n_layers - 1
    if text.strip() == "all":
        return tuple(range(n_layers))
    chosen: set[int] = set()
    for piece in text.split(","):
        match = _FORM.fullmatch(piece.strip())
        if match is None:
            raise UserError(f"layers '{text}' are not of the form all, 30-35, 40- or 3,5,7")
        first = int(match[1])
        stop = first if match[2] is None else int(match[3]) if match[3] else last
        if max(first, stop) > last:
            raise UserError(f"no layer {max(first, stop)}: this model has layers 0 to {last}")
        if stop < first:
            raise UserError(f"layers '{piece.strip()}' run backwards; write {stop}-{first}")
        chosen.update(range(first, stop + 1))
    return tuple(sorted(chosen))
