"""The seven files of a finished run, each written whole or not at all. No torch."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel

from emoprobe import runs
from emoprobe.runs import RunFolder
from emoprobe.tracking import curves
from emoprobe.tracking.assemble import Assembly, Tables

FILES = (
    "curves.parquet",
    "curves.csv",
    "transcripts.jsonl",
    "judgments.jsonl",
    "summary.json",
    "manifest.json",
    "report.html",
)


def write(folder: RunFolder, assembly: Assembly, tables: Tables, page: Callable[..., str]) -> None:
    """Write all files; `page` makes the report of them (`report.build`)."""
    manifest = _manifest(folder, assembly, tables)
    parquet = io.BytesIO()
    tables.curves.to_parquet(parquet, index=False)
    with runs.atomic(folder.file("curves.parquet")) as draft:
        draft.write_bytes(parquet.getvalue())
    folder.write_text("curves.csv", curves.to_csv(tables.curves))
    folder.write_text("transcripts.jsonl", _lines(tables.transcripts))
    folder.write_text("judgments.jsonl", _lines(tables.judgments))
    folder.write_json("summary.json", tables.summary, indent=2)
    html = page(tables.curves, tables.summary, tables.transcripts, tables.judgments, tables.tokens, manifest)
    folder.write_text("report.html", html)
    folder.write_json("manifest.json", manifest, indent=2)


def _manifest(folder: RunFolder, assembly: Assembly, tables: Tables) -> dict[str, Any]:
    """What ran, on what, and what has no row in the curves."""
    pending = [unit.name for unit in assembly.plan.units if not assembly.shards.done(unit)]
    return folder.manifest(pending) | {
        "loaded": assembly.facts,
        "files": list(FILES),
        "batches": [unit.name for unit in assembly.plan.units],
        "cells_without_data": tables.missing_cells,
        "counts": tables.summary["counts"],
    }


def _lines(records: Iterable[BaseModel]) -> str:
    return "".join(json.dumps(r.model_dump(mode="json"), ensure_ascii=False) + "\n" for r in records)
