"""Probes: the public estimators against scikit-learn, and all layers at once against the loop."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from emoprobe.probing.linear import (
    LogisticProbe,
    MeanDifferenceProbe,
    solve_layers,
    solve_logistic,
)


def _data(n: int = 300, d: int = 24, layers: int = 3, emotions: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, emotions + 1, n)  # the last one is none of them
    means = rng.normal(size=(layers, emotions + 1, d))
    x = means[:, kind] + rng.normal(size=(layers, n, d)) * np.linspace(0.3, 3, d)
    scales = np.array([1.0, 40.0, 0.01])[:layers, None, None]
    return x * scales + 7.0 * scales, kind[:, None] == np.arange(emotions)


@pytest.mark.parametrize("estimator", [LogisticProbe(), MeanDifferenceProbe()])
def test_scikit_learn_accepts_the_estimators(estimator: LogisticProbe | MeanDifferenceProbe) -> None:
    check_estimator(estimator, on_skip=None)  # its array-API checks want an environment variable


@pytest.mark.parametrize("c", [0.1, 1.0, 30.0])
def test_the_logistic_probe_is_scikit_learns_on_scaled_features(c: float) -> None:
    layers, positive = _data()
    for x in layers:
        scale = np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
        z = (x - x.mean(0)) / scale
        for column in positive.T:
            oracle = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(z, column)
            ours = LogisticProbe(C=c).fit(x, column)
            cosine = ours.direction_ @ oracle.coef_[0] / np.linalg.norm(oracle.coef_[0])
            assert cosine > 0.99999
            np.testing.assert_allclose(ours.decision_function(x), oracle.decision_function(z), atol=2e-2)


@pytest.mark.parametrize("family", ["logistic", "mean_difference"])
def test_all_layers_at_once_equal_the_loop_of_estimators(family: str) -> None:
    layers, positive = _data()
    solved = solve_layers(layers, positive, family)  # type: ignore[arg-type]
    assert solved.directions.shape == (4, 3, 24)
    assert solved.bias.shape == (4, 3)
    np.testing.assert_allclose(np.linalg.norm(solved.directions, axis=-1), 1.0)
    for layer, x in enumerate(layers):
        for emotion, column in enumerate(positive.T):
            probe = LogisticProbe() if family == "logistic" else MeanDifferenceProbe()
            alone = probe.fit(x, column)
            assert solved.directions[emotion, layer] @ alone.direction_ > 0.99999
            norm = np.linalg.norm(alone.coef_)
            np.testing.assert_allclose(
                x @ solved.directions[emotion, layer] + solved.bias[emotion, layer],
                alone.decision_function(x) / norm,
                atol=2e-3 * x.std(),
            )


def test_fewer_rows_than_features() -> None:
    layers, positive = _data(n=40, d=200)
    solved = solve_logistic(layers[0], positive)
    scores = layers[0] @ solved.weights + solved.bias
    assert scores[positive].min() > scores[~positive].mean()


def test_the_boundary_of_a_mean_difference_lies_half_way() -> None:
    probe = MeanDifferenceProbe().fit([[0.0, 5.0], [2.0, 5.0], [10.0, 5.0]], [0, 0, 1])
    assert probe.direction_ == pytest.approx([1.0, 0.0])
    assert probe.decision_function([[5.5, 5.0]])[0] == pytest.approx(0.0)


def test_what_cannot_be_fitted_is_refused() -> None:
    layers, positive = _data()
    with pytest.raises(ValueError, match="each emotion needs texts with it"):
        solve_layers(layers, np.zeros_like(positive))
    broken = layers.copy()
    broken[1, 3, 2] = np.nan
    with pytest.raises(ValueError, match="layer 1 has values that are not finite"):
        solve_layers(broken, positive)
    with pytest.raises(ValueError, match="layer 0 does not vary"):
        solve_layers(np.ones((1, 300, 24)), positive)
    with pytest.raises(ValueError, match="needs 2 classes"):
        LogisticProbe().fit(layers[0], np.arange(300) % 3)
