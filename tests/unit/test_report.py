from __future__ import annotations

import copy
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe import readout, report
from emoprobe.errors import UserError
from emoprobe.viewing import curves as plots
from emoprobe.viewing import figures, page, palette, panels, tables, text, tokens
from emoprobe.viewing.notebook import show
from emoprobe.viewing.tokens import TokenColours
from tests import synthetic_run
from tests.synthetic_run import HOSTILE


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of scripts."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self._in_script = [], [], False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            attrs, before = self.scripts[-1]
            self.scripts[-1] = (attrs, before + data)


def build(run):
    return report.build(run.curves, run.summary, run.transcripts, run.judgments, run.tokens, run.manifest)


@pytest.fixture(scope="module")
def run():
    return synthetic_run.make()


@pytest.fixture(scope="module")
def html(run):
    return build(run)


@pytest.fixture(scope="module")
def hostile():
    return build(synthetic_run.make({"base": HOSTILE, "dpo": HOSTILE}))


def outside_plotly(html):
    return html.replace(page._plotly(), "")


def test_the_same_run_gives_the_same_page(run, html):
    assert build(copy.deepcopy(run)) == html


def test_the_page_says_the_result_and_its_limits(run, html):
    assert "35.0\u00a0% [31.0, 39.0]" in html
    assert "calm text shows" in html
    assert "A model organism: never evidence about Gemma" in html
    assert "is a proxy" in html
    assert "−0.26" in html


@pytest.mark.parametrize("name", ["html", "hostile"])
def test_nothing_on_the_page_points_outside(name, request):
    for tag, attrs in Elements(outside_plotly(request.getfixturevalue(name))).tags:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            value = attrs.get(key)
            assert value is None or value.startswith(("#", "data:,")), (tag, key, value)
    assert "@import" not in html_style(request.getfixturevalue(name))
    assert "url(" not in html_style(request.getfixturevalue(name))


def html_style(page_text):
    return page_text[page_text.index("<style>") : page_text.index("</style>")]


def test_what_a_model_wrote_never_becomes_markup(html, hostile):
    calm, attacked = (Elements(outside_plotly(text)) for text in (html, hostile))
    kinds = {tag for tag, _ in calm.tags}
    assert {tag for tag, _ in attacked.tags} <= kinds
    assert "img" not in kinds
    assert len(attacked.scripts) == len(calm.scripts)
    for _, attrs in attacked.tags:
        assert not [name for name in attrs if name.startswith("on")]
        assert attrs.get("style", "").count("position") == 0


def test_embedded_data_survives_hostile_text(hostile):
    data = [body for attrs, body in Elements(outside_plotly(hostile)).scripts if attrs.get("type")]
    assert len(data) == 2
    for body in data:
        json.loads(body)
        assert not set("<>&\u2028\u2029") & set(body)


def test_characters_that_act_unseen_are_shown_as_codes(hostile):
    for character in ("\u202e", "\u2066", "\u2028", "\x00", "\x07", "\ud83d"):
        assert character not in outside_plotly(hostile)
        assert f"⟨U+{ord(character):04X}⟩" in hostile
    assert "👩‍👩‍👧‍👦" in hostile
    hostile.encode("utf-8")


def test_a_megabyte_reply_is_shortened(html, hostile):
    assert len(hostile) < len(html) + 100_000
    assert "more characters" in hostile


def test_scripts_run_by_hash_only(html):
    policy = next(a["content"] for t, a in Elements(html).tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    sources = next(part for part in policy.split(";") if "script-src" in part)
    assert sources.count("sha256-") == 3
    assert "unsafe" not in sources


def test_without_adapter_tokens_or_scores_there_is_still_a_page(run):
    bare = copy.deepcopy(run.summary)
    bare["adapters"], bare["internal"], bare["sentences"]["effect"] = [], {}, {}
    bare["expressed"] = {"base": bare["expressed"]["base"]}
    for arm in bare["expressed"]["base"].values():
        for row in arm["by_turn"]:
            row["mean"] = row["high"] = None
        arm["pooled"] = dict.fromkeys(arm["pooled"])
    bare["agreement"] |= {"layers": [], "baselines": {}, "chosen_layer": None}
    bare["coherence"] = {}
    base = run.curves[run.curves["adapter"] == "base"]
    text = report.build(base, bare, run.transcripts[:1], [], None, {})
    assert 'id="heat-base"' in text
    assert 'id="effect"' not in text
    assert 'id="heat-gap"' not in text


def test_two_adapters_are_a_choice(run):
    two = copy.deepcopy(run.summary)
    two["adapters"] = ["dpo", "sft<b>"]
    for table in ("internal", "expressed", "coherence"):
        two[table]["sft<b>"] = two[table]["dpo"]
    more = run.curves[run.curves["adapter"] == "dpo"].assign(adapter="sft<b>")
    import pandas as pd

    text = report.build(pd.concat([run.curves, more]), two, [], [], None, {})
    assert '<option value="sft&lt;b&gt;">' in text
    assert "sft<b>" not in outside_plotly(text)


def test_layers_of_the_run_are_the_choices(run):
    section = panels.by_turn(figures.Cells(run.curves), run.summary)
    layer = section.choices[0]
    assert [value for value, _ in layer.options] == [str(k) for k in synthetic_run.LAYERS]
    assert layer.default == "7"
    assert set(section.panels[-1].variants) == {
        f"{k}|{p}" for k in synthetic_run.LAYERS for p in ("reply", "pre_reply", "user")
    }


def test_heat_maps_share_one_scale_centred_on_zero(run):
    section = panels.heat_maps(figures.Cells(run.curves), run.summary)
    shown = [
        next(f for key, f in panel.variants.items() if key.endswith("negative|pre_reply"))["data"][0]
        for panel in section.panels
    ]
    assert len(shown) == 3
    assert len({trace["zmax"] for trace in shown}) == 1
    for trace in shown:
        assert trace["zmin"] == -trace["zmax"]
        assert np.nanmax(np.abs(np.array(trace["z"], dtype=float))) <= trace["zmax"] + 1e-9


def test_a_figure_holds_the_numbers_of_the_table(run):
    figure = figures.by_turn(figures.Cells(run.curves), 7, "anger", "user")
    lines = {trace["name"]: trace for trace in figure["data"] if trace.get("customdata")}
    assert list(lines) == ["base", "dpo, same text", "dpo, own text"]
    rows = run.curves.query("adapter == 'dpo' and source == 'replay' and emotion == 'anger'")
    rows = rows.query("layer == 7 and part == 'user'").sort_values("turn")
    assert lines["dpo, same text"]["y"] == pytest.approx(rows["mean"].tolist(), rel=1e-3)
    assert [point[0] for point in lines["dpo, same text"]["customdata"]] == pytest.approx(
        rows["lo"].tolist(), rel=1e-3
    )


def test_layers_below_the_adapter_are_marked_as_equal_by_construction(run):
    figure = figures.effect(run.summary, "dpo", "negative", "reply")
    (note,) = figure["layout"]["annotations"]
    assert "equal by construction" in note["text"]
    shade = figure["layout"]["shapes"][-1]
    assert (shade["x0"], shade["x1"]) == (-0.5, synthetic_run.ADAPTED[0] - 0.5)
    whole = copy.deepcopy(run.summary)
    whole["internal"]["dpo"]["adapted_layers"] = list(synthetic_run.LAYERS)
    assert "annotations" not in figures.effect(whole, "dpo", "negative", "reply")["layout"]


def test_a_missing_estimate_breaks_the_line_and_moves_no_other(run):
    summary = copy.deepcopy(run.summary)
    summary["expressed"]["base"]["rejected"]["by_turn"][2]["mean"] = None
    line = next(trace for trace in figures.expressed(summary)["data"] if "fill" not in trace)
    assert line["x"] == list(range(1, 9))
    assert line["y"][2] is None
    assert line["y"][3] == pytest.approx(1.4 + 3 * 0.62)


def test_no_band_is_drawn_over_a_line(run):
    drawn = ["fill" in trace for trace in figures.expressed(run.summary)["data"]]
    assert drawn == sorted(drawn, reverse=True)
    assert sum(drawn) == len(drawn) / 2


@pytest.mark.parametrize(
    "make",
    [
        lambda run: plots.heatmap(run.curves),
        lambda run: plots.gap_heatmap(run.summary, "dpo"),
        lambda run: plots.layer_curves(run.curves),
        lambda run: plots.effect_curves(run.summary, "dpo"),
        lambda run: plots.gap_curves(run.summary, "dpo"),
        lambda run: plots.agreement(run.summary),
        lambda run: plots.expressed_vs_internal(run.curves, run.summary, layer=7),
    ],
)
def test_notebook_figures_are_valid_plotly(run, make):
    assert make(run).data


def test_every_figure_of_the_page_is_valid_plotly(run):
    import plotly.graph_objects as go

    cells = figures.Cells(run.curves)
    sections = [
        panels.by_turn(cells, run.summary),
        panels.heat_maps(cells, run.summary),
        panels.effects(cells, run.summary),
        panels.agreement(run.summary),
    ]
    for section in sections:
        for panel in section.panels:
            go.Figure(next(iter(panel.variants.values())))


def test_a_failure_is_counted_in_the_tables(run):
    (_, first), *_ = tables.turns(run.summary)
    empty = first.columns.index("empty")
    assert [row[empty] for row in first.rows] == ["0", "0", "1", "0", "0", "0", "0", "0"]
    truncated = first.columns.index("truncated")
    assert [row[truncated] for row in first.rows][-1] == "1"


def test_side_by_side_shows_twin_and_adapter_of_one_question(run):
    columns, rows = tables.side_by_side(run.transcripts, run.judgments, run.transcripts[0].id)
    assert columns == ["base, rejected", "base, “Okay” twin", "dpo, rejected"]
    said, (base, twin, adapter) = rows[7]
    assert said == synthetic_run.FEEDBACK
    assert base.score == "score 8"
    assert twin.score == adapter.score == "score 0"


# -- tokens -------------------------------------------------------------------------------------------


def coloured(z, kind=("content",) * 3):
    values = np.asarray(z, dtype=np.float32)[None, None]
    n = values.shape[-1]
    return TokenColours(
        "t", ["a", " b", "\n"][:n], [1] * n, ["assistant"] * n, kind[:n], [4], ["joy"], {"base": values}
    )


def test_tint_follows_sign_and_size():
    assert tokens.tint(2.0, 4.0) == "rgb(var(--ep-hot) / 0.39)"
    assert tokens.tint(-9.0, 4.0) == "rgb(var(--ep-cold) / 0.78)"
    assert tokens.tint(float("nan"), 4.0) == tokens.tint(0.0, 4.0) == ""


def test_packed_z_is_within_half_a_step():
    import base64

    random = np.random.default_rng(0)
    z = {"base": random.normal(0, 6, (3, 2, 50)).astype(np.float32)}
    z["base"][0, 0, 0] = np.nan
    t = TokenColours(
        "t", ["x"] * 50, [1] * 50, ["user"] * 50, ["content"] * 50, [0, 1, 2], ["joy", "calm"], z
    )
    data = tokens._data(t)
    back = np.frombuffer(base64.b64decode(data["z"][0]), dtype=np.int8).reshape(3, 2, 50).astype(float)
    assert back[0, 0, 0] == -128
    assert (
        np.nanmax(np.abs(back.ravel()[1:] * data["step"] - z["base"].ravel()[1:])) <= data["step"] / 2 + 1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pieces": ["a"]}, "values of turn for 1 tokens"),
        ({"z": {}}, "no readings"),
        ({"layers": [1, 2]}, r"not \[layer, emotion, token\]"),
    ],
)
def test_coloured_tokens_refuse_what_does_not_fit(change, message):
    fields = {**coloured([1, 2, 3]).__dict__, **change}
    with pytest.raises(ValueError, match=message):
        TokenColours(**fields)


def test_an_unread_choice_is_refused_with_what_there_is():
    with pytest.raises(UserError, match="layer '9' was not read; known: 4"):
        show(coloured([1, 2, 3]), layer=9)
    with pytest.raises(UserError, match="known: joy"):
        show(coloured([1, 2, 3]), emotion="hunger")


def test_shown_twice_has_two_sets_of_ids():
    shown = show(coloured([1, 2, 3]))
    assert str(shown) == "a b\n"
    ids = [
        attrs["id"]
        for text in (shown._repr_html_(), shown._repr_html_())
        for _, attrs in Elements(text).tags
        if "id" in attrs
    ]
    assert len(ids) == len(set(ids)) == 2


def test_a_long_transcript_says_what_is_not_shown():
    n = tokens.MAX_TOKENS + 5
    t = TokenColours(
        "t", ["x"] * n, [1] * n, ["user"] * n, ["content"] * n, [0], ["joy"], {"base": np.ones((1, 1, n))}
    )
    html = tokens.html(t)
    assert "5 more tokens are not shown" in html
    assert html.count('class="ep-t"') == tokens.MAX_TOKENS


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_pieces_joined_are_the_text(written):
    def decode(ids):
        return bytes(ids).decode("utf-8", "replace")

    ids = list(written.encode("utf-8"))
    found = readout.pieces(decode, ids)
    assert "".join(found) == written
    assert len(found) == len(ids)


@given(st.text())
def test_escaped_text_is_inert(written):
    shown = text.escape(written)
    assert not set("<>\"'") & set(shown)
    shown.encode("utf-8")
    body = text.script_json({"text": written})
    assert not set("<>&") & set(body)
    assert json.loads(body) == {"text": written}


def test_lines_and_areas_share_no_colour():
    lines = {palette.BASE_LINE, *palette.ADAPTER_LINES, palette.NEUTRAL_LINE}
    assert not lines & {*palette.DIVERGING_LIGHT, *palette.DIVERGING_DARK}
    assert palette.line("base", ["a", "b"]) != palette.line("a", ["a", "b"]) != palette.line("b", ["a", "b"])


# -- the verb -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, run):
    """A run folder as `track` leaves it, without shards."""
    (tmp_path / "run.json").write_text(json.dumps({"schema_version": 1, "verb": "track", "config": {}}))
    run.curves.to_parquet(tmp_path / "curves.parquet")
    for name in ("summary", "manifest"):
        (tmp_path / f"{name}.json").write_text(json.dumps(getattr(run, name)))
    for name in ("transcripts", "judgments"):
        lines = [record.model_dump_json() for record in getattr(run, name)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_verb_rebuilds_the_page_from_the_folder(folder, run, capsys):
    assert report.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    expected = report.build(run.curves, run.summary, run.transcripts, run.judgments, None, run.manifest)
    assert (folder / "report.html").read_text("utf-8") == expected


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "run.json").unlink(), "is not a run folder"),
        (lambda f: (f / "summary.json").unlink(), "has no summary.json: the run is not finished"),
        (lambda f: (f / "curves.parquet").write_bytes(b"PAR1"), "curves.parquet is damaged"),
        (lambda f: (f / "summary.json").write_text("{"), "summary.json is damaged"),
        (lambda f: (f / "judgments.jsonl").write_text('{"turn": 1}\n'), "judgments.jsonl is damaged"),
        (
            lambda f: (f / "run.json").write_text('{"schema_version": 1, "verb": "probe", "config": {}}'),
            "holds a run of 'probe'",
        ),
    ],
)
def test_a_folder_that_cannot_be_shown_is_one_line(folder, spoil, message, capsys):
    spoil(folder)
    assert report.main([str(folder)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_a_folder_must_be_named(capsys):
    assert report.main([]) == 2
    assert capsys.readouterr().err == "emoprobe report: RUN is required\n"
