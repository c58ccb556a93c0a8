"""Shift and gap on simulated readings whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from emoprobe.activations.slots import SPAN_PARTS
from emoprobe.errors import RunError
from emoprobe.tracking.curves import Axes
from emoprobe.tracking.effects import CONTRASTS, Twins, effect

AXES = Axes(turns=5, layers=(0, 1, 2, 3), emotions=("frustration", "calm"))
FIRST_ADAPTED = 2


def twins(shift: float, gap_factor: float, n: int = 24, seed: int = 0, axes: Axes = AXES) -> Twins:
    """Gap of 2 z after turn 1; the adapter moves layers >= 2 by `shift` and multiplies the gap there."""
    rng = np.random.default_rng(seed)
    shape = (n, *axes.shape)
    conversation = rng.normal(0, 0.5, (n, 1, 1, 1, 1))
    okay = rng.normal(0, 1, shape) + conversation
    rejected = rng.normal(0, 1, shape) + conversation
    rejected[:, 1:] += 2.0
    movable = np.array([k >= FIRST_ADAPTED for k in axes.layers], dtype=float)[:, None]
    noise = [rng.normal(0, 0.2, shape) * movable for _ in range(2)]
    moved = np.zeros(shape) + shift * movable
    fell = np.zeros(shape)
    fell[:, 1:] = 2.0 * (gap_factor - 1) * movable
    return Twins(
        base_rejected=rejected,
        base_okay=okay,
        adapter_rejected=rejected + moved + fell + noise[0],
        adapter_okay=okay + moved + noise[1],
        clusters=tuple(f"c{i // 2}" for i in range(n)),
    )


def headline(entry: dict, contrast: str) -> dict[int, object]:
    return {row["layer"]: row["est"] for row in entry["negative"]["reply"][contrast]}


def test_shift_and_gap_are_recovered():
    entry = effect(twins(shift=-1.5, gap_factor=0.6), AXES, (2, 3))
    for layer in (2, 3):
        assert headline(entry, "shift")[layer].mean == pytest.approx(-1.5, abs=0.1)
        assert headline(entry, "gap_change")[layer].mean == pytest.approx(-0.8, abs=0.1)
        assert headline(entry, "gap_base")[layer].mean == pytest.approx(2.0, abs=0.3)
        assert headline(entry, "gap_adapter")[layer].mean == pytest.approx(1.2, abs=0.3)
    assert entry["over_layers"]["layers"] == [2, 3]
    assert entry["over_layers"]["gap_share"].mean == pytest.approx(0.8 / 2.3, abs=0.05)


def test_a_pure_shift_changes_no_gap():
    entry = effect(twins(shift=-3.0, gap_factor=1.0), AXES, (2, 3))
    for layer in (2, 3):
        band = headline(entry, "gap_change")[layer]
        assert band.lo < 0 < band.hi
        assert headline(entry, "raw_change")[layer].hi < -2.5


def test_contrasts_add_up_even_where_tokens_are_missing():
    data = twins(shift=-1.0, gap_factor=0.5)
    rng = np.random.default_rng(3)
    for values in (data.base_rejected, data.adapter_rejected):
        values[rng.random((24, AXES.turns)) < 0.2] = (
            np.nan
        )  # not the same holes in both: only shared ones count
    entry = effect(data, AXES, (2, 3))
    for emotion in AXES.rows:
        for part in SPAN_PARTS:
            means = {c: [row["est"].mean for row in entry[emotion][part][c]] for c in CONTRASTS}
            np.testing.assert_allclose(
                np.add(means["shift"], means["gap_change"]), means["raw_change"], atol=1e-9
            )
            np.testing.assert_allclose(
                np.subtract(means["gap_adapter"], means["gap_base"]), means["gap_change"], atol=1e-9
            )


def test_swapping_base_and_adapter_changes_only_the_sign():
    a = twins(shift=-1.0, gap_factor=0.5)
    b = Twins(a.adapter_rejected, a.adapter_okay, a.base_rejected, a.base_okay, a.clusters)
    there, back = effect(a, AXES, (2, 3)), effect(b, AXES, (2, 3))
    for contrast in ("shift", "raw_change", "gap_change"):
        for layer in AXES.layers:
            assert headline(there, contrast)[layer].mean == pytest.approx(
                -headline(back, contrast)[layer].mean
            )


def test_swapping_the_arms_turns_the_gap_over():
    a = twins(shift=-1.0, gap_factor=0.5)
    swapped = Twins(a.base_okay, a.base_rejected, a.adapter_okay, a.adapter_rejected, a.clusters)
    for layer in AXES.layers:
        there = headline(effect(a, AXES, (2, 3)), "gap_change")[layer]
        back = headline(effect(swapped, AXES, (2, 3)), "gap_change")[layer]
        assert there.mean == pytest.approx(-back.mean)


def test_layers_below_the_adapter_are_exactly_zero_and_named():
    entry = effect(twins(shift=-1.0, gap_factor=0.5), AXES, (2, 3))
    assert entry["equal_by_construction"] == [0, 1]
    for contrast in ("raw_change", "shift", "gap_change"):
        for layer in (0, 1):
            est = headline(entry, contrast)[layer]
            assert est.lo == est.mean == est.hi == 0


def test_a_change_below_the_adapter_is_refused():
    data = twins(shift=-1.0, gap_factor=0.5)
    data.adapter_okay[3, 2, 1, 1, 0] += 0.01
    with pytest.raises(RunError, match="below the adapter's first"):
        effect(data, AXES, (2, 3))


def test_the_first_turn_takes_no_part():
    data = twins(shift=-1.0, gap_factor=0.5)
    before = effect(data, AXES, (2, 3))
    data.adapter_rejected[:, 0, :, 2:] += 100
    assert effect(data, AXES, (2, 3)) == before


def test_one_turn_has_no_gap():
    axes = Axes(turns=1, layers=(0, 1), emotions=("frustration",))
    entry = effect(twins(-1.0, 0.5, axes=axes), axes, (0, 1))
    assert entry["negative"]["reply"]["gap_change"] == []
    assert entry["over_layers"]["gap_change"] is None
    assert entry["gap_change_by_turn"] == []


def test_the_band_holds_the_truth_at_all_layers_at_once():
    """Coverage of the simultaneous band of the gap change: 95 %, less what few clusters cost."""
    axes = Axes(turns=3, layers=(0, 1, 2, 3, 4, 5), emotions=())
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        zero = np.zeros((20, *axes.shape))
        change = rng.normal(-0.5, 1.0, (20, 1, 1, 1, 1)) + rng.normal(0, 0.5, (20, *axes.shape))
        entry = effect(Twins(zero, zero, change, zero, tuple(f"c{i}" for i in range(20))), axes, axes.layers)
        held += all(e.lo <= -0.5 <= e.hi for e in headline(entry, "gap_change").values())
    assert held >= 40 * 0.85
