"""A run folder to its page: `python -m emoprobe.report RUN` rebuilds report.html. No torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from emoprobe import runs
from emoprobe.cli import Config, Positional, command
from emoprobe.errors import UserError
from emoprobe.records import CURVE_COLUMNS, Judgment, Transcript

if TYPE_CHECKING:
    import pandas as pd

    from emoprobe.viewing.tokens import TokenColours

PAGE = "report.html"


class ReportConfig(Config):
    """Rebuild the HTML page of a tracked run from its tables."""

    run: Annotated[Path, Positional] = Field(description="folder of a finished `track` run")


def build(
    curves: pd.DataFrame,
    summary: Mapping[str, Any],
    transcripts: Sequence[Transcript],
    judgments: Sequence[Judgment],
    tokens: TokenColours | None,
    manifest: Mapping[str, Any],
) -> str:
    """The page as one string of HTML that needs no network.

    Estimates inside `summary` may be records or plain values; `tokens` is the transcript that is shown
    coloured. The same input gives the same text.
    """
    from emoprobe.viewing import page

    return page.render(curves, _plain(summary), transcripts, judgments, tokens, _plain(manifest))


def run(config: ReportConfig) -> Path:
    """Read the tables of a run and write its page beside them.

    Raises UserError for a folder that is no tracked run, or one that is not finished or is damaged.
    """
    folder = config.run
    found = runs.read_run(folder)
    if found["verb"] != "track":
        raise UserError(f"{folder} holds a run of '{found['verb']}'; a report is of a run of 'track'")
    summary = _json(folder, "summary.json")
    page = build(
        _table(folder, "curves.parquet"),
        summary,
        _records(folder, "transcripts.jsonl", Transcript),
        _records(folder, "judgments.jsonl", Judgment),
        _tokens(runs.RunFolder(folder, found["verb"], found["config"]), summary),
        _json(folder, "manifest.json"),
    )
    with runs.atomic(folder / PAGE) as draft:
        draft.write_text(page, "utf-8")
    return folder / PAGE


R = TypeVar("R", bound=BaseModel)


def _plain(value: Any) -> Any:
    """Records anywhere inside as plain JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _table(folder: Path, name: str) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(_file(folder, name), columns=list(CURVE_COLUMNS))
    except (OSError, ValueError, KeyError):
        raise UserError(_damaged(folder, name)) from None


def _json(folder: Path, name: str) -> Any:
    try:
        return json.loads(_file(folder, name).read_text("utf-8"))
    except ValueError:
        raise UserError(_damaged(folder, name)) from None


def _tokens(folder: runs.RunFolder, summary: Mapping[str, Any]) -> TokenColours | None:
    """The coloured transcript from its shards, or None where they are gone: shards may be deleted."""
    from emoprobe.tracking.assemble import colours
    from emoprobe.tracking.plan import BASE, Unit
    from emoprobe.tracking.shards import Shards

    shards, readers = Shards(folder), (BASE, *summary["adapters"])
    if not all(shards.done(Unit("tokens", reader)) for reader in readers):
        return None
    return colours(shards, readers, summary["layers"], summary["emotions"])


def _records(folder: Path, name: str, kind: type[R]) -> list[R]:
    try:
        lines = _file(folder, name).read_text("utf-8").split("\n")
        return [kind.model_validate_json(line) for line in lines if line]
    except (ValidationError, UnicodeDecodeError):
        raise UserError(_damaged(folder, name)) from None


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(
            f"{folder} has no {name}: the run is not finished; the same `track` command resumes it"
        )
    return folder / name


def _damaged(folder: Path, name: str) -> str:
    return f"{folder / name} is damaged: remove it, the same `track` command writes it anew"


main = command(ReportConfig, run)

if __name__ == "__main__":
    sys.exit(main())
