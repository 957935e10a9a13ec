"""Estimates from logs whose policy learned while it logged: how much each row may count.

On such a log rows are no longer alike: where the policy grew sure of itself, the weights of what
it gave up are rare and large, and plain averages are skewed. Rows are weighted by shares that
depend on the past only and even out each row's variance, so that sums over rows are martingales
to which a central limit theorem applies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attribution.errors import AttributionError
from attribution.intervals import blocks
from attribution.log import EvaluationLog, as_numbers, check_pmf
from attribution.targets import Reading

FloatArray = npt.NDArray[np.float64]


def snapshot_shares(reading: Reading, log: EvaluationLog) -> FloatArray:
    """Stabilising shares that do not depend on the row's context, (n,).

        h_t = ( E_x Σ_a π(a|x)² / p_t(a|x) )^(−1/2)

    one over the standard deviation that the weights give a row's term. The mean over contexts is
    that of the other rows which the same snapshot drew, never the row's own; without ``logger``
    each row is a snapshot of its own.

    References
    ----------
    Hadad, Hirshberg, Zhan, Wager & Athey (2021), Confidence Intervals for Policy Evaluation in
    Adaptive Experiments, PNAS 118(15), arXiv 1911.02768; Bibaut, Chambaz, Dimakopoulou, Kallus &
    van der Laan (2021), Post-Contextual-Bandit Inference, NeurIPS 34, arXiv 2106.00418.

    Raises
    ------
    AttributionError
        If the log has no pmf; or a snapshot drew one row only in a log with context.
    """
    target, pmf = reading.whole("aw_aipw"), _logged(log, "aw_aipw")
    each = _variance(target, pmf)
    if log.logger is None:
        if log.context is not None:
            raise AttributionError(
                "`estimators` names 'aw_aipw' and the log has a context but no `logger`. "
                "Name the snapshot that drew each row."
            )
        return 1 / np.sqrt(each)
    count = np.bincount(log.logger)
    if log.context is not None and (count[log.logger] < 2).any():
        raise AttributionError(
            f"`logger` {int((count == 1).argmax())} drew a single row, from which its weights "
            "cannot be told apart from the row's context. Give snapshots of several rows."
        )
    total = np.bincount(log.logger, weights=each)
    alone = count[log.logger] == 1
    others = np.where(alone, each, total[log.logger] - each) / np.where(
        alone, 1, count[log.logger] - 1
    )
    return 1 / np.sqrt(others)


@dataclass(frozen=True, slots=True, eq=False)
class ContextShares:
    """Shares h_t(X_t) / Σ_s h_s(X_t) of each row, (n,), and those of every snapshot, (b, n)."""

    own: FloatArray
    all: FloatArray

    def influence(self, terms: FloatArray, logger: npt.NDArray[np.intp]) -> FloatArray:
        """Each row's term less what its snapshot was to expect of it, (n,); they sum to zero.

            ψ_t = B_t − Σ_s [ h_t(X_s) / Σ_u h_u(X_s) ] B_s,   B_t = own_t Γ_t

        Their sum of squares is the variance of the estimate (Zhan et al. 2021, section 3.2).
        """
        weighted = self.own * terms
        centred: FloatArray = weighted - (self.all @ weighted)[logger]
        return centred


def context_shares(
    reading: Reading, log: EvaluationLog, history: Iterable[npt.ArrayLike] | None
) -> ContextShares:
    """Stabilising shares that depend on the row's context.

        V̂ = Σ_t [ h_t(X_t) / Σ_s h_s(X_t) ] Γ_t,   h_t(x) = ( Σ_a π(a|x)² / p_t(a|x) )^(−1/2)

    Rows that one snapshot drew share its h.

    Parameters
    ----------
    history
        For each code of the log's ``logger``, in their order, the (n, k) pmf which that snapshot
        would have had at every row. One is held at a time.

    References
    ----------
    Zhan, Hadad, Hirshberg & Athey (2021), Off-Policy Evaluation via Adaptive Weighting with Data
    from Contextual Bandits, KDD, arXiv 2106.02029.

    Raises
    ------
    AttributionError
        If ``history`` is missing, or does not fit the log.
    """
    target = reading.whole("caw_aipw")
    if history is None or log.logger is None:
        raise AttributionError(
            "`estimators` names 'caw_aipw', which needs `history` (each snapshot's pmf at every "
            "row) and the log's `logger`. Give both, or use 'aw_aipw'."
        )
    count = np.bincount(log.logger)
    found = []
    for index, each in enumerate(history):
        pmf = as_numbers(f"history.{index}", each)
        check_pmf(f"history.{index}", pmf, log)
        found.append(1 / np.sqrt(_variance(target, pmf)))
    if len(found) != len(count):
        raise AttributionError(
            f"`history` holds {len(found)} snapshots and `logger` {len(count)}. "
            "Give one for each code, in their order."
        )
    h = np.array(found)
    total = count @ h
    if not (total > 0).all():
        raise AttributionError(
            f"no snapshot of `history` could have drawn what `targets.{reading.name}` would in "
            f"row {int((total <= 0).argmax())}. Evaluate a target among the logged actions."
        )
    h /= total
    return ContextShares(h[log.logger, np.arange(log.n)], h)


def _logged(log: EvaluationLog, estimator: str) -> FloatArray:
    if log.pmf is None:
        raise AttributionError(
            f"`estimators` names {estimator!r} but the log has no `pmf`. Log all probabilities."
        )
    return log.pmf


def _variance(target: FloatArray, pmf: FloatArray) -> FloatArray:
    """Σ_a π(a|x)² / p(a|x), (n,); infinite where the target goes beyond the support."""
    found = np.empty(len(target))
    for rows in blocks(*target.shape):
        squares = target[rows] ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(squares > 0, squares / pmf[rows], 0.0)
        found[rows] = each.sum(axis=1)
    return found
