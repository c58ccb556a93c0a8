"""Where models, adapters and probes lie: the current directory, the checkout, the installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["models", "adapters", "probes"]

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = {"models": "artifacts/models", "adapters": "artifacts/adapters", "probes": "probes"}


def place(kind: Kind, *parts: str) -> Path:
    """Where something new of this kind is kept: under the current directory."""
    return Path(_PLACES[kind], *parts)


def find(kind: Kind, *parts: str) -> Path | None:
    """The first folder of that name: `find("adapters", "organism", "dpo")`. None if there is none."""
    for root in _roots(kind):
        folder = root.joinpath(*parts)
        if folder.is_dir():
            return folder
    return None


def names(kind: Kind, *parts: str) -> list[str]:
    """Names of what lies there, in any of the places, sorted."""
    found = set()
    for root in _roots(kind):
        folder = root.joinpath(*parts)
        if folder.is_dir():
            found |= {entry.name for entry in folder.iterdir() if entry.is_dir()}
    return sorted(name for name in found if not name.startswith("."))


def _roots(kind: Kind) -> list[Path]:
    roots = [place(kind)]
    checkout = _PACKAGE.parent
    if (checkout / "pyproject.toml").is_file():
        roots.append(checkout / _PLACES[kind])
    roots.append(_PACKAGE / "_shipped" / kind)
    return roots
