from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from emoprobe import stats


def redrawn(clusters, n_boot=stats.N_BOOT, seed=0):
    """Row numbers of each bootstrap replicate, spelled out from the same multinomial counts."""
    weights, inverse = stats.bootstrap_weights(clusters, n_boot, seed)
    rows = [np.flatnonzero(inverse == c) for c in range(weights.shape[1])]
    for counts in weights.astype(int):
        yield np.concatenate([np.repeat(r, k) for r, k in zip(rows, counts, strict=True)])


def expanded(replicates, mean, k):
    """The interval of the module's docstring, with numpy's own quantile."""
    tail = scipy_stats.norm.cdf(np.sqrt(k / (k - 1)) * scipy_stats.t.ppf(0.025, k - 1))
    kept = np.asarray(replicates)[~np.isnan(replicates)]
    lo, hi = np.quantile(kept, [tail, 1 - tail])
    return min(lo, mean), max(hi, mean)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def clusters(rng):
    return [f"puzzle-{c}" for c in rng.integers(0, 12, size=60)]


def test_weights_draw_as_many_clusters_as_there_are(clusters):
    weights, inverse = stats.bootstrap_weights(clusters, 500)
    assert weights.shape == (500, len(set(clusters)))
    assert (weights.sum(axis=1) == len(set(clusters))).all()
    assert [sorted(set(clusters))[i] for i in inverse] == clusters


def test_cell_means_equal_a_spelled_out_bootstrap(rng, clusters):
    values = rng.normal(size=(60, 3, 2)) + rng.normal(size=(12, 3, 2))[[int(c[7:]) for c in clusters]]
    values[rng.random(values.shape) < 0.3] = np.nan
    cells = stats.cluster_means(values, clusters, n_boot=300)
    draws = list(redrawn(clusters, 300))
    for i in np.ndindex(3, 2):
        column = values[(slice(None), *i)]
        mean = np.nanmean(column)
        k = len({c for c, v in zip(clusters, column, strict=True) if not np.isnan(v)})
        lo, hi = expanded([np.nanmean(column[rows]) for rows in draws], mean, k)
        assert cells.mean[i] == pytest.approx(mean)
        assert (cells.lo[i], cells.hi[i]) == pytest.approx((lo, hi))
        assert cells.n[i] == (~np.isnan(column)).sum()


def test_chunks_of_cells_change_nothing(rng, clusters, monkeypatch):
    values = rng.normal(size=(60, 7))
    whole = stats.cluster_means(values, clusters)
    monkeypatch.setattr(stats, "_CELLS_PER_CHUNK", 3)
    for a, b in zip(whole, stats.cluster_means(values, clusters), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_mask_is_the_same_as_nan(rng, clusters):
    values = rng.normal(size=(60, 4))
    mask = rng.random(60) < 0.5
    masked = stats.cluster_means(values, clusters, mask)
    missing = stats.cluster_means(np.where(mask[:, None], values, np.nan), clusters)
    for a, b in zip(masked, missing, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_cell_without_data_has_none_and_spoils_no_other(rng, clusters):
    values = rng.normal(size=(60, 2))
    alone = stats.cluster_means(values[:, 1:], clusters)
    values[:, 0] = np.nan
    cells = stats.cluster_means(values, clusters)
    assert cells.n.tolist() == [0, 60]
    assert np.isnan(cells.mean[0])
    assert np.isnan(cells.lo[0])
    assert cells.lo[1] == pytest.approx(alone.lo[0])
    assert stats.cluster_mean([np.nan, np.nan], [0, 1]) is None


finite = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.one_of(finite, st.just(np.nan)), st.integers(0, 4)), min_size=1, max_size=25))
def test_the_mean_lies_in_its_interval(rows):
    values, clusters = zip(*rows, strict=True)
    estimate = stats.cluster_mean(values, clusters, n_boot=60)
    known = [v for v in values if not np.isnan(v)]
    if not known:
        assert estimate is None
        return
    assert estimate is not None
    assert min(known) <= estimate.lo <= estimate.mean <= estimate.hi <= max(known)
    assert estimate.n == len(known)


def test_row_order_and_label_names_change_nothing_and_the_seed_decides(rng, clusters):
    values = rng.normal(size=60)
    first = stats.cluster_mean(values, clusters)
    order = rng.permutation(60)
    shuffled = stats.cluster_mean(values[order], [clusters[i] for i in order])
    assert first is not None
    assert shuffled is not None
    assert (shuffled.lo, shuffled.hi) == pytest.approx((first.lo, first.hi))
    assert stats.cluster_mean(values, clusters) == first
    assert stats.cluster_mean(values, clusters, seed=1) != first


def test_conversations_are_counted_once(rng):
    estimate = stats.cluster_mean(
        rng.normal(size=12), np.repeat([0, 1, 2], 4), np.repeat(["a", "b", "c", "d"], 3)
    )
    assert estimate is not None
    assert (estimate.n, estimate.clusters) == (4, 3)


def test_one_cluster_says_that_it_has_no_interval():
    estimate = stats.cluster_mean([1.0, 2.0, 6.0], ["x"] * 3)
    assert estimate is not None
    assert (estimate.lo, estimate.mean, estimate.hi) == (3.0, 3.0, 3.0)
    assert estimate.method == "single_cluster"


@pytest.mark.parametrize("k", [6, 30])
def test_intervals_of_clustered_data_cover_the_truth(k):
    """Rows of a cluster share most of their noise: an interval over rows would cover about 60 %."""
    rng = np.random.default_rng(3)
    trials = 400
    shared = np.repeat(rng.normal(size=(k, trials)), 5, axis=0)
    values = shared + 0.3 * rng.normal(size=shared.shape)
    cells = stats.cluster_means(values, np.repeat(np.arange(k), 5), n_boot=500)
    covered = np.mean((cells.lo <= 0) & (cells.hi >= 0))
    assert 0.92 <= covered <= 0.985


def test_difference_uses_pairs_that_are_whole(rng, clusters):
    a, b = rng.normal(size=60), rng.normal(size=60)
    a[:5], b[5:9] = np.nan, np.nan
    estimate = stats.paired_difference(a, b, clusters)
    assert estimate is not None
    assert estimate.n == 51
    assert estimate.mean == pytest.approx(np.nanmean(a - b))


def test_equal_pairs_differ_by_exactly_nothing(clusters):
    a = np.linspace(1e8, 2e8, 60)
    estimate = stats.paired_difference(a, a, clusters)
    assert estimate is not None
    assert (estimate.lo, estimate.mean, estimate.hi) == (0, 0, 0)


@pytest.mark.parametrize("value", [0, 1])
def test_unanimous_proportions_are_clopper_pearson_on_conversations(value):
    replies = np.full(40, value)
    estimate = stats.proportion(replies, np.repeat(np.arange(5), 8), np.repeat(np.arange(10), 4))
    exact = scipy_stats.binomtest(10 * value, 10).proportion_ci(0.95)
    assert estimate is not None
    assert estimate.method == "clopper_pearson"
    assert (estimate.mean, estimate.lo, estimate.hi) == pytest.approx((value, exact.low, exact.high))
    assert (estimate.n, estimate.clusters) == (10, 5)


def test_other_proportions_are_bootstrapped_over_clusters(rng, clusters):
    replies = (rng.random(60) < 0.3).astype(float)
    replies[:3] = np.nan
    estimate = stats.proportion(replies, clusters, list(range(60)))
    assert estimate == stats.cluster_mean(replies, clusters, list(range(60)))
    assert estimate is not None
    assert 0 <= estimate.lo < estimate.mean < estimate.hi <= 1
    assert estimate.n == 57


def test_a_score_is_no_proportion():
    with pytest.raises(ValueError, match="0 or 1"):
        stats.proportion([0, 5], [0, 1], [0, 1])


def test_slope_equals_polyfit_and_its_bootstrap(rng, clusters):
    x = np.tile(np.arange(1.0, 9.0), 8)[:60]
    y = 0.4 * x + rng.normal(size=60)
    y[3] = np.nan
    estimate = stats.ols_slope(y, x, clusters, n_boot=300)
    there = ~np.isnan(y)
    slope = np.polyfit(x[there], y[there], 1)[0]
    draws = [rows[there[rows]] for rows in redrawn(clusters, 300)]
    lo, hi = expanded([np.polyfit(x[r], y[r], 1)[0] for r in draws], slope, len(set(clusters)))
    assert estimate is not None
    assert (estimate.mean, estimate.lo, estimate.hi) == pytest.approx((slope, lo, hi))
    assert stats.ols_slope(y, np.ones(60), clusters) is None


def test_the_band_holds_all_layers_at_once():
    """20 independent layers: pointwise intervals all cover in a third of the trials, the band in most."""
    rng = np.random.default_rng(5)
    band_holds, pointwise_holds = [], []
    for _ in range(100):
        values = rng.normal(size=(40, 20))
        band = stats.simultaneous_band(values, np.arange(40), n_boot=400)
        cells = stats.cluster_means(values, np.arange(40), n_boot=400)
        assert (band.lo <= cells.lo).all()
        assert (band.hi >= cells.hi).all()
        band_holds.append(((band.lo <= 0) & (band.hi >= 0)).all())
        pointwise_holds.append(((cells.lo <= 0) & (cells.hi >= 0)).all())
    assert np.mean(band_holds) >= 0.9
    assert np.mean(pointwise_holds) <= 0.6


def test_a_layer_that_cannot_change_has_no_width_and_widens_no_other(rng, clusters):
    values = rng.normal(size=(60, 3))
    with_still = np.concatenate([np.zeros((60, 2)), values], axis=1)
    band, alone = stats.simultaneous_band(with_still, clusters), stats.simultaneous_band(values, clusters)
    assert band.lo[:2].tolist() == band.hi[:2].tolist() == [0, 0]
    np.testing.assert_allclose(band.lo[2:], alone.lo)


def test_one_stratum_is_spearmans_rho(rng, clusters):
    x = rng.integers(0, 6, size=(60, 3)).astype(float)
    y = x[:, 0] + rng.integers(0, 4, size=60)
    for layer, estimate in enumerate(stats.spearman_within(x, y, ["all"] * 60, clusters, n_boot=200)):
        assert estimate is not None
        assert estimate.mean == pytest.approx(scipy_stats.spearmanr(x[:, layer], y).statistic)
        draws = [scipy_stats.spearmanr(x[r, layer], y[r]).statistic for r in redrawn(clusters, 200)]
        assert (estimate.lo, estimate.hi) == pytest.approx(expanded(draws, estimate.mean, len(set(clusters))))


def test_a_trend_that_both_share_over_turns_is_no_agreement(rng):
    turn = np.tile(np.arange(8), 40)
    x = turn * 3.0 + rng.normal(size=320)
    y = turn * 2.0 + rng.normal(size=320)
    conversation = np.repeat(np.arange(40), 8)
    (within,) = stats.spearman_within(x[:, None], y, turn, conversation)
    assert scipy_stats.spearmanr(x, y).statistic > 0.9
    assert within is not None
    assert within.lo < 0 < within.hi
    assert abs(within.mean) < 0.15


def test_agreement_within_turns_is_found_and_missing_scores_are_left_out(rng):
    turn = np.tile(np.arange(8), 40)
    state = rng.normal(size=320)
    y = state - 5.0 * turn
    y[::10] = np.nan
    x = np.stack([state + 10 * turn, np.ones(320)], axis=1)
    strong, constant = stats.spearman_within(x, y, turn, np.repeat(np.arange(40), 8), np.repeat(range(40), 8))
    assert strong is not None
    assert strong.mean == pytest.approx(1)
    assert strong.n == 40
    assert constant is None


def test_the_gain_over_another_predictor_is_paired(rng):
    turn, conversation = np.tile(np.arange(4), 50), np.repeat(np.arange(50), 4)
    y = rng.normal(size=200)
    good, poor = y + 0.5 * rng.normal(size=200), y + 2 * rng.normal(size=200)
    x = np.stack([good, poor], axis=1)
    x[7, 0] = np.nan
    gain, none = stats.spearman_gain(x, poor, y, turn, conversation, conversation)
    assert none is not None
    assert (none.lo, none.mean, none.hi) == (0, 0, 0)
    here = np.delete(np.arange(200), 7)
    alone = [
        stats.spearman_within(v[here, None], y[here], turn[here], conversation[here]) for v in (good, poor)
    ]
    assert gain is not None
    assert gain.lo > 0.2
    means = [estimate.mean for (estimate,) in alone if estimate is not None]
    assert gain.mean == pytest.approx(means[0] - means[1])


def test_a_ratio_of_means_equals_a_spelled_out_bootstrap(rng, clusters):
    b = 2 + rng.normal(size=60)
    a = 0.3 * b + 0.1 * rng.normal(size=60)
    a[4] = np.nan
    estimate = stats.ratio_of_means(a, b, clusters, n_boot=300)
    rows_of = [rows[~np.isnan(a[rows])] for rows in redrawn(clusters, 300)]
    mean = np.nanmean(a) / np.delete(b, 4).mean()
    lo, hi = expanded([a[r].mean() / b[r].mean() for r in rows_of], mean, len(set(clusters)))
    assert estimate is not None
    assert (estimate.mean, estimate.lo, estimate.hi) == pytest.approx((mean, lo, hi))
    assert stats.ratio_of_means(a, b - b.mean(), clusters) is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="3 rows but 2 cluster labels"):
        stats.cluster_mean([1, 2, 3], ["a", "b"])


def test_infinite_values_are_refused():
    with pytest.raises(ValueError, match="infinite"):
        stats.cluster_mean([1, np.inf], ["a", "b"])
