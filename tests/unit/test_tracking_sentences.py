"""What may be said of an effect, and what may not; and that a person can read the table."""

from __future__ import annotations

import pytest

from emoprobe.stats import Estimate
from emoprobe.tracking import sentences, table
from tests import synthetic_run


def est(mean: float, half: float = 0.1, method: str = "cluster_bootstrap") -> Estimate:
    return Estimate(mean=mean, lo=mean - half, hi=mean + half, n=48, clusters=16, method=method)


def effect(gap_changes: list[float], gap: float = -0.5, shift: float = -1.5, **more) -> dict:
    """An `internal` entry with these gap changes at layers 4, 5, ..., below them layer 3, equal."""
    layers = list(range(4, 4 + len(gap_changes)))
    rows = [{"layer": 3, "est": est(0, 0)}]
    rows += [{"layer": k, "est": est(g, **more)} for k, g in zip(layers, gap_changes, strict=True)]
    share = est(gap / (gap + shift))
    return {
        "negative": {"pre_reply": {"gap_change": rows}},
        "over_layers": {
            "layers": layers,
            "gap_base": est(2),
            "raw_change": est(gap + shift),
            "shift": est(shift),
            "gap_change": est(gap),
            "gap_share": share,
        },
    }


def test_a_fall_is_said_of_the_gap_where_the_band_excludes_zero():
    text = sentences.effect_sentence("dpo", effect([-0.5, -0.4, -0.05]))
    assert "in that gap the internal state fell at 2 of 3 layers (4-5)" in text
    assert "-2.00 z [-2.10, -1.90] (mean over layers 4-6)" in text
    assert "-1.50 z [-1.60, -1.40] of it is shift" in text
    assert "25 % [15, 35] is gap, the rest shift" in text
    assert text.count("fell") == 1


def test_a_large_shift_alone_is_no_fall():
    text = sentences.effect_sentence("dpo", effect([0.02, -0.03], gap=0.0, shift=-5.0))
    assert "fell" not in text
    assert "no fall of the internal state is shown" in text


def test_a_rise_is_said_too():
    text = sentences.effect_sentence("dpo", effect([-0.5, 0.5]))
    assert "fell at 1 of 2 layers (4) and rose at 1 of 2 layers (5)" in text


def test_opposite_signs_have_no_share():
    assert "of the whole" not in sentences.effect_sentence("dpo", effect([0.5], gap=0.5, shift=-1.5))


def test_one_scenario_claims_nothing():
    text = sentences.effect_sentence("dpo", effect([-0.5], half=0, method="single_cluster"))
    assert "fell" not in text
    assert "one scenario allows no interval" in text


def test_one_turn_has_no_effect_to_tell():
    entry = effect([-0.5])
    entry["over_layers"] |= dict.fromkeys(("raw_change", "shift", "gap_change"))
    assert "cannot be told" in sentences.effect_sentence("dpo", entry)


def lift(value):
    """Estimates as records, wherever they stand."""
    if isinstance(value, dict):
        found = {key: lift(v) for key, v in value.items()}
        return Estimate(**found) if {"mean", "lo", "clusters"} <= found.keys() else found
    return [lift(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def summary() -> dict:
    """A summary as `assemble` makes it, with the synthetic run's numbers."""
    made = lift(synthetic_run.make().summary)
    made["agreement"]["gain_over_words"] = [{"layer": 7, "est": est(0.02)}]
    made["counts"] = {"replies": 1536, "unscored": 0, "empty": 1, "truncated": 3, "missing_cells": 0}
    for arms in made["expressed"].values():
        for entry in arms.values():
            entry["pooled"]["high_slope"] = est(0.04)
    facts = {"model": {"name": "organism"}, "parameters": 3_800_000, "probes": {"sentence": "Held out."}}
    return made | {"sentences": sentences.of(made, facts), "limits": sentences.limits(made)}


def test_the_organism_is_named_as_one(summary):
    assert "3.8 million parameters" in summary["sentences"]["organism"]
    other = sentences.of(
        summary, {"model": {"name": "gemma-3-27b-it"}, "parameters": 27e9, "probes": {"sentence": ""}}
    )
    assert other["organism"] is None


def test_the_proxy_is_a_limit(summary):
    assert sentences.PROXY_LIMIT in sentences.limits(summary)
    assert sentences.PROXY_LIMIT not in sentences.limits(summary | {"proxy": False})


def test_the_table_fits_a_screen_and_says_what_its_columns_are(summary):
    text = table.render(summary)
    lines = text.splitlines()
    assert 25 <= len(lines) <= 60
    assert max(map(len, lines)) < 160
    for said in (
        "base, rejected",
        "dpo, okay",
        "gap change (simultaneous)",
        "picked after the fact",
        "pooled",
    ):
        assert said in text
    header = next(line for line in lines if line.startswith("layer "))
    row = lines[lines.index(header) + 1]
    assert row.index("+") == header.index("gap base") or row.index("-") == header.index("gap base")


def test_the_table_marks_layers_below_the_adapter(summary):
    rows = [line for line in table.render(summary).splitlines() if line[:2].strip().isdigit()]
    assert any(line.startswith("0 =") for line in rows)
    assert not any(line.startswith("11 =") for line in rows)
