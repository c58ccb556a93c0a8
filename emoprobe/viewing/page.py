"""One self-contained HTML page of a tracked run: no network, and nothing a model wrote is markup. No torch.

Scripts run by their hash only (Content-Security-Policy), so that even a text that escaped its escaping
could not run; the policy also forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from emoprobe import __version__
from emoprobe.records import Judgment, Transcript
from emoprobe.viewing import figures, palette, panels, tables, tokens
from emoprobe.viewing import style as figure_style
from emoprobe.viewing.text import script_json

if TYPE_CHECKING:
    import pandas as pd


def render(
    curves: pd.DataFrame,
    summary: Mapping[str, Any],
    transcripts: Sequence[Transcript],
    judgments: Sequence[Judgment],
    coloured: tokens.TokenColours | None,
    manifest: Mapping[str, Any],
) -> str:
    """The page as text. `summary` and `manifest` are plain JSON values."""
    cells = figures.Cells(curves)
    sections = {
        "turns": panels.by_turn(cells, summary),
        "heat": panels.heat_maps(cells, summary),
        "effects": panels.effects(cells, summary),
        "agreement": panels.agreement(summary),
    }
    data = {
        "templates": {name: figure_style.template(dark=name == "dark") for name in ("light", "dark")},
        "panels": {p.id: p.variants for s in sections.values() if s for p in s.panels},
    }
    scripts = [_plotly(), tokens.script(), _asset("report.js")]
    columns, replies = tables.side_by_side(
        transcripts, judgments, coloured.transcript_id if coloured else None
    )
    page = _template().render(
        policy=_policy(scripts),
        style=Markup(_style()),
        scripts=[Markup(text) for text in scripts],
        data=Markup(script_json(data)),
        version=__version__,
        s=summary,
        sections=sections,
        said=tables.said(summary),
        facts=tables.facts(summary),
        pooled=tables.pooled(summary),
        by_turn=tables.turns(summary),
        coherence=tables.coherence(summary),
        counts=list(tables.counts(summary.get("counts", {}))),
        is_organism=str(summary["model"]).startswith("organism"),
        coloured=Markup(_coloured(coloured, judgments, summary)) if coloured else None,
        reply_columns=columns,
        replies=replies,
        manifest=json.dumps(manifest, indent=2, ensure_ascii=False),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _coloured(
    coloured: tokens.TokenColours, judgments: Sequence[Judgment], summary: Mapping[str, Any]
) -> str:
    layer = panels.first_layer(summary)
    notes = tables.notes(judgments, coloured.transcript_id)
    return tokens.html(coloured, layer if layer in coloured.layers else None, notes=notes, uid="transcript")


def _policy(scripts: Sequence[str]) -> str:
    """Nothing from anywhere; these scripts and no other. Plotly writes style elements and blob images."""
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _style() -> str:
    lines = {"base": palette.BASE_LINE, "adapter": palette.ADAPTER_LINES[0]}
    variables = "".join(f"--line-{name}:{colour};" for name, colour in lines.items())
    return f":root{{{variables}}}\n{tokens.style()}\n{_asset('report.css')}"


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["joined"] = typeset
    return environment.from_string(_asset("report.html"))


def typeset(text: str) -> str:
    """A sentence of the summary as it is printed: true minus signs, and no line break before %."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text).replace(" %", "\u00a0%").replace(" z", "\u00a0z")


def _asset(name: str) -> str:
    return resources.files("emoprobe.viewing").joinpath("assets", name).read_text("utf-8")
