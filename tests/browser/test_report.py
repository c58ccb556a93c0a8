"""The page in a real browser: quiet, inert against hostile text, and its choices do what they say."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from emoprobe import report
from emoprobe.viewing import tokens
from emoprobe.viewing.notebook import show
from tests import synthetic_run
from tests.synthetic_run import HOSTILE

DRAWN = "html[data-drawn]"
PATIENCE_MS = 120_000
"""A page takes 2 s; a machine that also trains a model can take a minute over it."""


@dataclass
class Seen:
    """A page and everything it did that it should not."""

    page: object
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def open_page(chromium, tmp_path_factory):
    opened = []

    def go(html, width=1200, scheme="light"):
        file = tmp_path_factory.mktemp("page") / "report.html"
        file.write_text(html, "utf-8")
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE_MS)
        seen = Seen(page)
        page.on("request", lambda r: seen.requests.append(r.url))
        page.on("console", lambda m: seen.messages.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda e: seen.messages.append(f"error: {e}"))
        page.goto(file.as_uri())
        seen.requests.remove(file.as_uri())
        opened.append(page)
        return seen

    yield go
    for page in opened:
        page.close()


@pytest.fixture(scope="module")
def run():
    return synthetic_run.make()


@pytest.fixture(scope="module")
def html(run):
    return report.build(run.curves, run.summary, run.transcripts, run.judgments, run.tokens, run.manifest)


@pytest.fixture(scope="module")
def seen(open_page, html):
    shown = open_page(html)
    shown.page.wait_for_selector(DRAWN)
    return shown


def test_the_page_is_quiet_and_draws_every_figure(seen):
    assert seen.requests == []
    assert seen.messages == []
    drawn = seen.page.eval_on_selector_all(
        ".panel", "ps => ps.map(p => Boolean(p.querySelector('.main-svg')))"
    )
    assert drawn == [True] * 9


def test_hostile_transcripts_stay_text(open_page):
    run = synthetic_run.make({"base": HOSTILE, "dpo": HOSTILE})
    attacked = open_page(
        report.build(run.curves, run.summary, run.transcripts, run.judgments, run.tokens, run.manifest)
    )
    attacked.page.wait_for_selector(DRAWN)
    attacked.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    attacked.page.hover("#transcript .ep-assistant .ep-t >> nth=3")
    assert attacked.requests == []
    assert attacked.messages == []
    assert attacked.page.evaluate("typeof window.hacked") == "undefined"
    assert attacked.page.locator("img").count() == 0
    assert "<img src=x onerror=" in attacked.page.inner_text("#transcript .ep-turns")
    assert attacked.page.evaluate("document.documentElement.scrollWidth") == 1200


def line_of(page, panel, name):
    return page.evaluate(
        "([id, name]) => document.getElementById(id).data.find(t => t.name === name && t.customdata).y",
        [panel, name],
    )


def test_choosing_a_layer_changes_the_curve(seen, run):
    page = seen.page
    for layer in ("2", "9"):
        page.select_option("#by-turn select[data-choice=layer]", layer)
        page.select_option("#by-turn select[data-choice=part]", "reply")
        rows = run.curves.query(
            f"layer == {layer} and part == 'reply' and emotion == 'negative' and adapter == 'base' "
            "and source == 'own'"
        ).sort_values("turn")
        assert line_of(page, "represented", "base") == pytest.approx(rows["mean"].tolist(), rel=1e-3)
    assert "layer 9" in page.inner_text("#represented")


def test_a_choice_without_a_figure_says_so_and_comes_back(seen):
    page = seen.page
    page.select_option("#layers select[data-choice=emotion]", "anger")
    assert not page.is_visible("#heat-gap")
    assert page.is_visible("text=The gap change by turn is computed")
    assert page.is_visible("#heat-base")
    page.select_option("#layers select[data-choice=emotion]", "negative")
    assert page.is_visible("#heat-gap")
    assert not page.is_visible("text=The gap change by turn is computed")


def backgrounds(page):
    return page.eval_on_selector_all(
        "#transcript .ep-t", "ts => ts.map(t => getComputedStyle(t).backgroundColor)"
    )


def test_choosing_layer_emotion_and_reader_recolours_the_tokens(seen, run):
    page = seen.page
    states = [backgrounds(page)]
    for choose in (
        lambda: page.select_option("#transcript select[data-key=layer]", label="3"),
        lambda: page.select_option("#transcript select[data-key=emotion]", label="anger"),
        lambda: page.check("#transcript .ep-readers input >> nth=1", force=True),
    ):
        choose()
        states.append(backgrounds(page))
    for before, after in itertools.pairwise(states):
        assert before != after
    t = run.tokens
    z = t.z["dpo"][list(t.layers).index(3), list(t.emotions).index("anger")]
    for i in (int(np.nanargmax(z)), int(np.nanargmin(z))):
        wanted = tokens.tint(float(z[i]), t.limit("anger"))
        hue = [137, 56, 158] if "hot" in wanted else [27, 128, 67]
        alpha = float(wanted.rpartition("/ ")[2].rstrip(")"))
        shown = [float(v) for v in states[-1][i].partition("(")[2].rstrip(")").split(",")]
        assert shown[:3] == hue
        assert shown[3] == pytest.approx(alpha, abs=0.03)


def test_pointing_at_a_token_tells_its_z(seen, run):
    page = seen.page
    page.select_option("#transcript select[data-key=layer]", label="7")
    page.select_option("#transcript select[data-key=emotion]", label="negative")
    i = run.tokens.pieces.index(" frustrated")
    page.hover(f"#transcript .ep-t[data-i='{i}']")
    z = {reader: float(values[7, -1, i]) for reader, values in run.tokens.z.items()}
    said = page.inner_text("#transcript .ep-tip").replace("−", "-").split("\n")
    assert said[0] == "negative, layer 7"
    for line, (reader, value) in zip(said[1:], z.items(), strict=True):
        assert line.startswith(f"{reader}: z ")
        assert float(line.rpartition(" ")[2]) == pytest.approx(value, abs=0.04)


def test_a_phone_shows_it_without_scrolling_sideways_and_the_dark_theme_is_dark(open_page, html):
    phone = open_page(html, width=400, scheme="dark")
    phone.page.wait_for_selector(DRAWN)
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 400
    assert phone.page.evaluate("document.getElementById('represented')._fullLayout.font.color") == "#e3e5ea"
    assert phone.messages == []


def test_two_transcripts_in_one_notebook_do_not_meddle(open_page, run):
    both = "".join(f"<div class=cell>{show(run.tokens)._repr_html_()}</div>" for _ in range(2))
    seen = open_page(f"<!doctype html><meta charset=utf-8>{both}")
    cells = [f".cell:nth-of-type({k}) " for k in (1, 2)]

    def colours(cell):
        return seen.page.eval_on_selector_all(f"{cell}.ep-t", "ts => ts.map(t => t.style.background)")

    before = [colours(cell) for cell in cells]
    assert before[0] == before[1]
    seen.page.check(f"{cells[0]}.ep-readers input >> nth=1", force=True)
    seen.page.select_option(f"{cells[0]}select[data-key=emotion]", label="joy")
    assert colours(cells[0]) != before[0]
    assert colours(cells[1]) == before[1]
    assert seen.page.is_checked(f"{cells[1]}.ep-readers input >> nth=0")
    assert (seen.requests, seen.messages) == ([], [])
