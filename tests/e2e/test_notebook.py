"""The tour runs from its first cell to its last, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
TOUR = ROOT / "experiments" / "00-tour" / "tour.ipynb"
PATIENCE_S = 600


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(TOUR, as_version=4)


@pytest.fixture(scope="module")
def outputs(committed):
    """Per code cell its source and everything it showed, as text."""
    notebook = nbformat.from_dict(committed)
    client = NotebookClient(notebook, timeout=PATIENCE_S, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    return [(cell.source, cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]


def shown(outputs, source):
    """What the cell that holds `source` displays, by MIME type."""
    (found,) = [made for text, made in outputs if source in text]
    return {kind: data for output in found for kind, data in output.get("data", {}).items()}


def test_the_committed_notebook_holds_no_outputs(committed):
    for cell in committed.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_five_lines_show_a_coloured_transcript(outputs):
    source, _ = outputs[0]
    assert len([line for line in source.splitlines() if line.strip()]) <= 5
    html = shown(outputs, "HookedModel.load")["text/html"]
    said = re.sub(r"<[^>]+>", "", html)  # a token may be a single digit
    assert "make 431" in said
    assert html.count('class="ep-turn ep-assistant"') == 6
    assert html.count("var(--ep-") > 20, "hardly a token is tinted"
    assert "<span>base</span>" in html
    assert "<span>dpo</span>" in html


def test_the_cells_show_scores_curves_and_files(outputs):
    assert "score" in shown(outputs, "judge_transcripts")["text/html"]
    assert "rejected" in shown(outputs, 'feedback="okay"')["text/plain"]
    for plot in ("expressed_vs_internal", "plots.heatmap", "plots.effect_curves"):
        assert shown(outputs, plot)["application/vnd.plotly.v1+json"]["data"]
    listed = shown(outputs, "sorted(path.name")["text/plain"]
    for name in ("chat.csv", "chat.html", "chat.json", "layers.html", "report.html", "curves.csv"):
        assert repr(name) in listed


def test_the_exported_transcript_is_a_page_that_needs_nothing(outputs):
    html = shown(outputs, "HookedModel.load")["text/html"]
    assert "http" not in html
    assert "src=" not in html
