"""Curves: exact columns, fixed order, no NaN, six digits, holes counted."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import pandas as pd

from emoprobe.activations.slots import SPAN_PARTS
from emoprobe.records import CURVE_COLUMNS
from emoprobe.tracking.curves import Axes, Reading, six_digits, table, to_csv

SOURCES: tuple[Literal["own"], Literal["replay"]] = ("own", "replay")
AXES = Axes(turns=3, layers=(4, 7), emotions=("anger", "joy"))


def readings(n: int = 6) -> list[Reading]:
    rng = np.random.default_rng(0)
    clusters = tuple(f"c{i // 2}" for i in range(n))
    return [
        Reading(adapter, source, rng.normal(0, 3, (n, *AXES.shape)), clusters)
        for adapter in ("base", "dpo")
        for source in SOURCES
    ]


def test_columns_order_and_intervals():
    curves, missing = table(readings(), AXES, "organism")
    assert tuple(curves.columns) == CURVE_COLUMNS
    assert len(curves) == 4 * 3 * len(SPAN_PARTS) * 2 * 3
    assert not curves.isna().any().any()
    assert ((curves.lo <= curves["mean"]) & (curves["mean"] <= curves.hi)).all()
    assert list(dict.fromkeys(curves.emotion)) == ["anger", "joy", "negative"]
    assert list(dict.fromkeys(curves.layer)) == [4, 7]
    assert set(curves.turn) == {1, 2, 3}
    assert set(curves.unit) == {"z"}
    assert set(curves.n) == {6}
    assert missing == {"base.own": 0, "base.replay": 0, "dpo.own": 0, "dpo.replay": 0}
    assert not curves.duplicated(["adapter", "source", "emotion", "layer", "turn", "part"]).any()


def test_means_are_those_of_the_cells():
    data = readings()
    curves, _ = table(data, AXES, "organism")
    row = curves.query("adapter=='dpo' and source=='own' and emotion=='joy' and layer==7 and turn==2")
    row = row[row.part == "pre_reply"].iloc[0]
    expected = data[2].z[:, 1, SPAN_PARTS.index("pre_reply"), 1, 1].mean()
    assert row["mean"] == six_digits(expected)


def test_a_cell_without_data_has_no_row_and_is_counted():
    data = readings()
    data[0].z[:, 2, SPAN_PARTS.index("reply")] = np.nan
    data[0].z[0, 1, SPAN_PARTS.index("reply")] = np.nan
    curves, missing = table(data, AXES, "organism")
    own = curves.query("adapter=='base' and source=='own' and part=='reply'")
    assert set(own.turn) == {1, 2}
    assert set(own[own.turn == 2].n) == {5}
    assert missing["base.own"] == 2 * 3
    assert not curves.isna().any().any()


def test_text_reads_back_equal_and_has_six_digits():
    curves, _ = table(readings(), AXES, "organism")
    text = to_csv(curves)
    assert "\r" not in text
    assert "-0," not in text
    back = pd.read_csv(io.StringIO(text))
    pd.testing.assert_frame_equal(back, curves, check_dtype=False)
    for line in text.splitlines()[1:50]:
        digits = line.split(",")[8].lstrip("-").replace(".", "").split("e")[0].lstrip("0")
        assert len(digits) <= 6


def test_order_of_conversations_changes_nothing():
    (first, *_) = readings()
    turned = Reading(first.adapter, first.source, first.z[::-1].copy(), first.clusters[::-1])
    assert to_csv(table([first], AXES, "m")[0]) == to_csv(table([turned], AXES, "m")[0])


def test_negative_zero_is_never_written():
    assert str(six_digits(-0.0)) == "0.0"
    assert str(six_digits(-1e-320)) != "-0.0"
