"""Reward models for direct and doubly robust estimators, never fitted on what they judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from attribution.errors import AttributionError
from attribution.log import EvaluationLog

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
ModelName = Literal["auto", "mean", "ridge", "logistic", "gradient_boosting"]

# Pseudo-observations at the overall mean in the model of means by action.
SHRINKAGE = 10.0
# A categorical column beyond this keeps its commonest values; the others share a column.
MOST_CATEGORIES = 50


def cross_fit(log: EvaluationLog, model: ModelName = "auto", folds: int = 5) -> FloatArray:
    """Expected reward of each action in each row, from models that never saw the row's unit.

    ``mean`` is the mean reward by action, shrunk to the overall mean:
    q̂(a) = (Σ r + 10 r̄) / (n_a + 10). ``ridge`` and ``logistic`` add the context, with a
    slope of its own for each action. ``gradient_boosting`` grows histogram trees on context and
    action. ``auto`` takes ``mean`` without context, ``logistic`` for
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
    predict = _predictor(log, model)
    fold = unit_folds(log, folds)
    q_hat = np.empty((log.n, log.k))
    for number in range(folds):
        test = np.flatnonzero(fold == number)
        if len(test):
            q_hat[test] = predict(np.flatnonzero(fold != number), test)
    return q_hat


def fit_earlier(log: EvaluationLog, model: ModelName = "auto", blocks: int = 20) -> FloatArray:
    """Expected reward of each action in each row, from models of earlier rows alone.

    On an adaptive log later draws depend on earlier rewards, so that folds by unit would let the
    future into a prediction; and a sequence that may be looked at any time must not change what
    it said. The rows are cut in the order of ``time``, of the log itself if it has none, into
    ``blocks`` of equal length; each is predicted from those before it. The first has nothing to
    learn from: the middle of the declared range of the reward stands there, or 0.

    Returns
    -------
    (n, k), in the reward's unit.

    Raises
    ------
    AttributionError
        As `cross_fit`.
    """
    if blocks < 2:
        raise AttributionError(f"`blocks` is {blocks}. Fitting on earlier rows needs two or more.")
    predict = _predictor(log, model)
    order = np.arange(log.n) if log.time is None else np.argsort(log.time, kind="stable")
    parts = [part for part in np.array_split(order, blocks) if len(part)]
    q_hat = np.empty((log.n, log.k))
    q_hat[parts[0]] = 0.0 if log.reward_range is None else sum(log.reward_range) / 2
    for number in range(1, len(parts)):
        q_hat[parts[number]] = predict(np.concatenate(parts[:number]), parts[number])
    return q_hat


def _predictor(log: EvaluationLog, model: ModelName) -> Callable[[IntArray, IntArray], FloatArray]:
    """The function that fits the model to some rows and predicts others, (rows, k)."""
    if model not in get_args(ModelName):
        raise AttributionError(
            f"`reward_model` is {model!r}. Known: {', '.join(get_args(ModelName))}."
        )
    binary = bool(np.isin(log.reward, (0.0, 1.0)).all())
    if model == "auto":
        model = "mean" if log.context is None else "logistic" if binary else "ridge"
    if model == "logistic" and not binary:
        raise AttributionError('`model` is "logistic" but rewards are not all 0 or 1. Use "ridge".')
    if model == "mean":
        return lambda train, test: _means(log, train, len(test))
    if log.context is None:
        raise AttributionError(f'`model` is "{model}" but the log has no context. Name `context`.')
    x = encode(log.context)
    if model == "gradient_boosting":
        return lambda train, test: _boosted(log, x, train, test, classify=binary)
    return lambda train, test: _linear(log, x, train, test, logistic=model == "logistic")


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


def _boosted(
    log: EvaluationLog, x: FloatArray, train: IntArray, test: IntArray, *, classify: bool
) -> FloatArray:
    from sklearn.ensemble import (  # noqa: PLC0415  # as above
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    )

    reward = log.reward[train]
    if (reward == reward[0]).all():
        return np.full((len(test), log.k), reward[0])
    # Trees know at most 255 categories; more actions are split by their order.
    kinds = [0] if log.k <= 255 else None
    make = HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor
    model = make(categorical_features=kinds, early_stopping=False, random_state=0)
    model.fit(np.column_stack([log.action[train], x[train]]), reward)
    q_hat = np.empty((len(test), log.k))
    for action in range(log.k):
        inputs = np.column_stack([np.full(len(test), action), x[test]])
        q_hat[:, action] = model.predict_proba(inputs)[:, 1] if classify else model.predict(inputs)
    return q_hat


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
