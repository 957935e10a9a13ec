"""Reward models for the direct and the doubly robust estimators, cross-fitted by unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from attribution.errors import AttributionError
from attribution.log import EvaluationLog

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
ModelName = Literal["auto", "mean", "ridge", "logistic"]

# Pseudo-observations at the overall mean in the model of means by action.
SHRINKAGE = 10.0
# A categorical column beyond this keeps its commonest values; the others share a column.
MOST_CATEGORIES = 50


def cross_fit(log: EvaluationLog, model: ModelName = "auto", folds: int = 5) -> FloatArray:
    """Expected reward of each action in each row, from models that never saw the row's unit.

    ``mean`` is the mean reward by action, shrunk to the overall mean:
    q̂(a) = (Σ r + 10 r̄) / (n_a + 10). ``ridge`` and ``logistic`` add the context, with a
    slope of its own for each action. ``auto`` takes ``mean`` without context, ``logistic`` for
    rewards that are all 0 or 1, otherwise ``ridge``.

    Returns
    -------
    (n, k), in the reward's unit.

    Raises
    ------
    AttributionError
        If the model reads context and the log has none, or for fewer than two folds.
    """
    if folds < 2:
        raise AttributionError(f"`folds` is {folds}. Cross-fitting needs at least two.")
    binary = bool(np.isin(log.reward, (0.0, 1.0)).all())
    if model == "auto":
        model = "mean" if log.context is None else "logistic" if binary else "ridge"
    if model == "logistic" and not binary:
        raise AttributionError('`model` is "logistic" but rewards are not all 0 or 1. Use "ridge".')
    if model == "mean":
        return _each_fold(log, folds, lambda train, test: _means(log, train, len(test)))
    if log.context is None:
        raise AttributionError(f'`model` is "{model}" but the log has no context. Name `context`.')
    x = encode(log.context)
    return _each_fold(
        log, folds, lambda train, test: _linear(log, x, train, test, logistic=model == "logistic")
    )


def _each_fold(
    log: EvaluationLog, folds: int, predict: Callable[[IntArray, IntArray], FloatArray]
) -> FloatArray:
    fold = unit_folds(log, folds)
    q_hat = np.empty((log.n, log.k))
    for number in range(folds):
        test = np.flatnonzero(fold == number)
        if len(test):
            train = np.flatnonzero(fold != number)
            q_hat[test] = predict(train, test)
    return q_hat


def unit_folds(log: EvaluationLog, folds: int) -> IntArray:
    """Fold of each row, (n,): whole units, spread evenly, the same whenever it is asked."""
    rank = np.random.default_rng(0).permutation(log.n_units) % folds
    return rank if log.unit is None else rank[log.unit]


def _means(log: EvaluationLog, train: IntArray, rows: int) -> FloatArray:
    reward, action = log.reward[train], log.action[train]
    drawn = np.bincount(action, minlength=log.k)
    total = np.bincount(action, weights=reward, minlength=log.k)
    means = (total + SHRINKAGE * reward.mean()) / (drawn + SHRINKAGE)
    return np.broadcast_to(means, (rows, log.k))


def _linear(
    log: EvaluationLog, x: FloatArray, train: IntArray, test: IntArray, *, logistic: bool
) -> FloatArray:
    # Half a second that only reports with a context ought to pay.
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415

    reward = log.reward[train]
    if logistic and (reward == reward[0]).all():
        return np.full((len(test), log.k), reward[0])
    design = _design(x[train], log.action[train], log.k)
    model = LogisticRegression(max_iter=1000) if logistic else Ridge(solver="sparse_cg")
    model.fit(design, reward)
    coefficient: FloatArray = np.ravel(model.coef_)
    d = x.shape[1]
    shared, own = coefficient[:d], coefficient[d:].reshape(log.k, d + 1)
    score = (x[test] @ shared)[:, None] + own[:, 0] + x[test] @ own[:, 1:].T + model.intercept_
    return np.asarray(1 / (1 + np.exp(-score)) if logistic else score, dtype=np.float64)


def _design(x: FloatArray, action: IntArray, k: int) -> Any:
    """Sparse columns [x, then for each action 1{a} and 1{a} x]."""
    n, d = x.shape
    block = np.hstack([np.ones((n, 1)), x])
    columns = action[:, None] * (d + 1) + np.arange(d + 1)
    start = np.arange(0, n * (d + 1) + 1, d + 1)
    own = sparse.csr_array((block.ravel(), columns.ravel(), start), shape=(n, k * (d + 1)))
    return sparse.hstack([sparse.csr_array(x), own], format="csr")


def encode(context: pd.DataFrame) -> FloatArray:
    """Context as (n, d) numbers: numeric columns standardised, others one column a value.

    A missing number becomes the mean, with a column that says so; a column without any number
    says nothing and is left out. The commonest value of a category has no column, being what the
    others are compared with, and those beyond `MOST_CATEGORIES` share one.
    """
    parts: list[FloatArray] = []
    for name in context.columns:
        series = context[name]
        if pd.api.types.is_numeric_dtype(series):
            values = series.to_numpy(dtype=np.float64, na_value=np.nan)
            missing = ~np.isfinite(values)
            if missing.all():
                continue
            centred = np.where(missing, 0.0, values - values[~missing].mean())
            parts.append(centred / (centred.std() or 1.0))
            if missing.any():
                parts.append(missing.astype(np.float64))
        else:
            text = series.astype("string").fillna("")
            common = text.value_counts().index[:MOST_CATEGORIES]
            parts.extend((text == value).to_numpy(dtype=np.float64) for value in common[1:])
            rare = np.asarray(~text.isin(common), dtype=np.float64)
            if rare.any():
                parts.append(rare)
    return np.column_stack(parts) if parts else np.zeros((len(context), 0))
