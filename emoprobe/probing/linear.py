"""Linear probes: public estimators, each one layer's, and one solver over all layers and emotions.

The estimators follow scikit-learn's API (`X [n, d_model]`, binary `y`, every argument defaulted). They and
`solve_layers` share their arithmetic, so that all layers at once equal the loop over layers.

Features are centred and divided by one number per layer, the root mean square norm of the centred rows.
One number keeps the residual stream's geometry, and makes `C` mean the same at every layer and model.
"""

# ruff: noqa: N803 (X and C are scikit-learn's names)
from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

Floats = NDArray[np.float64]
Family = Literal["logistic", "mean_difference"]

C_DEFAULT = 1.0


class Linear(NamedTuple):
    """Decision functions `X @ weights + bias`: weights `[d_model, emotion]`, bias `[emotion]`."""

    weights: Floats
    bias: Floats
    n_iter: int = 1


class Directions(NamedTuple):
    """Unit directions `[emotion, layer, d_model]`; `x @ direction + bias [emotion, layer]` is 0 at the
    decision boundary, in units of the residual stream."""

    directions: Floats
    bias: Floats


def solve_logistic(
    x: Floats, positive: NDArray[np.bool_], c: float = C_DEFAULT, tol: float = 1e-6, max_iter: int = 1000
) -> Linear:
    """L2-regularised logistic regressions of each column of `positive [n, emotion]` on `x [n, d_model]`.

    All columns are solved in one L-BFGS run: a step costs two matrix products whatever their number.
    The objective is scikit-learn's on the scaled features (penalty `|w|^2 / 2`, loss times `c`, the
    intercept free), divided by `c * n`; `tol` bounds its gradient.
    """
    z, centre, scale = _scaled(x)
    n, d = z.shape
    k = positive.shape[1]
    sign = np.where(positive, 1.0, -1.0)
    penalty = 1.0 / (c * n)

    def objective(flat: Floats) -> tuple[float, Floats]:
        w, b = flat[: d * k].reshape(d, k), flat[d * k :]
        margin = sign * (z @ w + b)
        slope = -sign * expit(-margin) / n
        value = np.logaddexp(0.0, -margin).sum() / n + 0.5 * penalty * (w * w).sum()
        return float(value), np.concatenate([(z.T @ slope + penalty * w).ravel(), slope.sum(axis=0)])

    share = np.clip(positive.mean(axis=0), 0.5 / n, 1 - 0.5 / n)
    start = np.concatenate([np.zeros(d * k), np.log(share / (1 - share))])
    options = {"maxiter": max_iter, "maxfun": 4 * max_iter, "gtol": tol, "ftol": 1e-14, "maxcor": 20}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    weights = found.x[: d * k].reshape(d, k) / scale
    return Linear(weights, found.x[d * k :] - centre @ weights, int(found.nit))


def solve_mean_difference(x: Floats, positive: NDArray[np.bool_]) -> Linear:
    """Mean of the positive rows minus mean of the others; the boundary is half-way between them."""
    inside, outside = positive / positive.sum(axis=0), ~positive / (~positive).sum(axis=0)
    centre = x.mean(axis=0)
    above, below = (x - centre).T @ inside, (x - centre).T @ outside
    weights = above - below
    return Linear(weights, -(weights * ((above + below) / 2 + centre[:, None])).sum(axis=0))


def solve_layers(
    layers: Iterable[ArrayLike], positive: ArrayLike, family: Family = "logistic", c: float = C_DEFAULT
) -> Directions:
    """A probe for each layer and emotion: `layers` yields `[n, d_model]`, `positive` is `[n, emotion]`.

    One layer is held as doubles at a time. A column of `positive` that is all true or all false is a
    ValueError, and so is a NaN.
    """
    labels = np.asarray(positive, dtype=bool)
    if labels.all(axis=0).any() or (~labels).all(axis=0).any():
        raise ValueError("each emotion needs texts with it and texts without it")
    directions, biases = [], []
    for layer, values in enumerate(layers):
        x = np.asarray(values, dtype=np.float64)
        if not np.isfinite(x).all():
            raise ValueError(f"layer {layer} has values that are not finite")
        solved = solve_logistic(x, labels, c) if family == "logistic" else solve_mean_difference(x, labels)
        norm = np.linalg.norm(solved.weights, axis=0)
        if not norm.all():
            raise ValueError(f"layer {layer} does not vary: it has no direction")
        directions.append((solved.weights / norm).T)
        biases.append(solved.bias / norm)
    return Directions(np.stack(directions, axis=1), np.stack(biases, axis=1))


class _LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What the families share: `coef_ [1, d_model]`, `intercept_ [1]`, `direction_ [d_model]`."""

    coef_: Floats
    intercept_: Floats
    classes_: NDArray[Any]
    n_iter_: int

    def _solve(self, x: Floats, positive: NDArray[np.bool_]) -> Linear:
        raise NotImplementedError

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit one layer's probe; `y` holds two classes, the greater one being the emotion."""
        features, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        if len(self.classes_) != 2:
            raise ValueError(
                "Only binary classification is supported: this probe needs 2 classes; "
                f"the data has {len(self.classes_)} class(es)"
            )
        solved = self._solve(features, (labels == self.classes_[1])[:, None])
        self.coef_, self.intercept_, self.n_iter_ = solved.weights.T, solved.bias, solved.n_iter
        return self

    @property
    def direction_(self) -> Floats:
        """The unit direction `[d_model]`."""
        check_is_fitted(self)
        unit: Floats = self.coef_[0] / np.linalg.norm(self.coef_[0])
        return unit

    def decision_function(self, X: ArrayLike) -> Floats:
        """Signed score `[n]`; positive is the greater class."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype=np.float64, reset=False)
        scores: Floats = features @ self.coef_[0] + self.intercept_[0]
        return scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The class of each row `[n]`."""
        scores = self.decision_function(X)
        labels: NDArray[Any] = self.classes_[(scores > 0).astype(int)]
        return labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


class LogisticProbe(_LinearProbe):
    """L2-regularised logistic regression. `C` is scikit-learn's, on features scaled as the module says."""

    def __init__(self, C: float = C_DEFAULT, tol: float = 1e-6, max_iter: int = 1000) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter

    def _solve(self, x: Floats, positive: NDArray[np.bool_]) -> Linear:
        return solve_logistic(x, positive, self.C, self.tol, self.max_iter)

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Probabilities of both classes `[n, 2]`."""
        p = expit(self.decision_function(X))
        return np.stack([1 - p, p], axis=1)


class MeanDifferenceProbe(_LinearProbe):
    """Difference of class means (the emotion-vector recipe of Anthropic's "Emotion concepts", without
    its removal of neutral components)."""

    def _solve(self, x: Floats, positive: NDArray[np.bool_]) -> Linear:
        return solve_mean_difference(x, positive)


def _scaled(x: Floats) -> tuple[Floats, Floats, float]:
    centre = x.mean(axis=0)
    z = x - centre
    scale = float(np.sqrt((z * z).sum(axis=1).mean())) or 1.0
    return z / scale, centre, scale
