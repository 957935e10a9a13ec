"""Promoting a candidate: which rows may judge it, the attempt, and what is stored of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from attribution import AttributionError, EvaluationLog
from engine.errors import RequestError
from engine.gate import Judgement, judge, level_of
from engine.ids import rfc3339
from engine.learning import learn
from engine.log import PromotionEntry
from engine.logsource import DatabaseLog
from engine.models import Warn, restore
from engine.reports import Rows, matured_rows, max_weight, policy_pmfs
from engine.revisions import Revisions
from engine.standing import check_learner, judged_until, standing
from engine.store import PromotionRow, Store
from engine.store import read as ask
from engine.workspace import Candidate, Learner, Surface, Workspace
from policies import Policy, snapshot_digest

# Of a lineage, a snapshot that learned from this share of the rows that it might is taken.
_NEARLY_ALL = 0.9
_CHALLENGER_SHARE = 0.1

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of asking for a promotion: what to tell, and what to store, if it spent a level."""

    report: dict[str, Any]
    entry: PromotionEntry | None


def attempt(
    store: Store,
    workspace: Workspace,
    id_: str,
    *,
    until_us: int,
    now_us: int,
    revisions: Revisions,
    warn: Warn,
) -> Attempt:
    """Judge a learner's candidate by what matured by ``until_us``, once.

    The first attempt since the last change of what serves has the candidate learn from the first
    half of the rows and judges it by the second; a later one judges it by the rows that came since
    the last attempt, and it learns from all before. Where there are fewer than the gate asks for,
    nothing of their rewards is looked at and no level is spent.

    Raises
    ------
    NotFoundError
        If the workspace has no such learner.
    RequestError
        If it has no candidate, or that serves already.
    ReportError
        If the log cannot be judged by.
    """
    check_learner(workspace, id_)
    learner = workspace.candidates.get(id_)
    if learner is None:
        raise RequestError("learner", f'"{id_}" has no `candidate`; declare one under its policy')
    history = store.read(ask.promotions).get(id_, [])
    if standing(workspace, id_, history).promoted:
        raise RequestError(
            "learner", f'"{id_}" is served by its candidate already; declare another, or roll back'
        )
    found = _candidate(workspace, learner)
    surface = workspace.surfaces[learner.surface]
    source = DatabaseLog(store)
    rows = _incumbents(source, learner, surface, _last_change(history), until_us)
    told: dict[str, Any] = {
        "learner": id_,
        "kind": found.policy.kind,
        "mode": found.mode,
        "attempt": 1 + sum(row.what in ("attempt", "promote") for row in history),
    }
    split = max(judged_until(history), _last_change(history))
    if not any(row.what in ("attempt", "promote") for row in history) and len(rows.frame):
        split = int(np.median(_times(rows)))
    judging = rows.only(_times(rows) > split)
    told |= {"rows": len(judging.frame), "trained_until": rfc3339(split) if split >= 0 else None}
    if len(judging.frame) < found.gate.rows:
        reason = f"{found.gate.rows:,} rows are to judge it; look again when they have matured"
        return Attempt(told | {"verdict": "too_few", "reason": reason}, None)
    policy = _trained(store, workspace, learner, split, revisions, warn)
    pmf = policy_pmfs(source, judging, learner.slot, found.policy, policy)
    told["snapshot"] = snapshot_digest(policy.dumps())
    if found.mode == "apprentice":
        return Attempt(told | _agreement(judging, pmf), None)
    level = level_of(found.gate.alpha, told["attempt"])
    judgement = _judged(source, judging, pmf, learner, found, surface, level, split, until_us)
    told |= {"level": level, "margin": found.gate.margin, **_plain(judgement)}
    promoted = judgement.verdict == "promoted"
    if judgement.verdict == "too_weak":
        told["challenger"] = challenger(learner, found)
    entry = PromotionEntry(
        learner=id_,
        what="promote" if promoted else "attempt",
        spec=learner.spec if promoted else None,
        snapshot=None,
        judged_until=int(_times(judging).max()),
        at=now_us,
        report=msgspec.json.encode(told).decode(),
        after=history[-1].seq if history else 0,
    )
    return Attempt(told, entry)


def challenger(learner: Learner, candidate: Candidate) -> dict[str, Any]:
    """What to add to a workspace, to give the candidate a share and judge it by lift."""
    policy = candidate.policy
    name = f"{policy.id}_challenger"
    declared: dict[str, Any] = {"kind": policy.kind, **policy.parameters, "floor": policy.floor}
    slot = f"{learner.surface}.{learner.slot}"
    share = _CHALLENGER_SHARE
    variants = {
        "incumbent": {"weight": 1 - share, "slots": {slot: {"policy": policy.id}}},
        "challenger": {"weight": share, "slots": {slot: {"policy": name}}},
    }
    experiment = {"range": [0.0, 1.0], "baseline": "incumbent", "variants": variants}
    return {"policies": {name: declared}, "layers": {name: {name: experiment}}}


def _candidate(workspace: Workspace, learner: Learner) -> Candidate:
    found = workspace.policies[learner.policy.id].candidate
    if found is None:
        raise RequestError("learner", f'"{learner.id}" has no `candidate`')
    return found


def _last_change(history: Sequence[PromotionRow]) -> int:
    return max((row.at for row in history if row.what != "attempt"), default=-1)


def _times(rows: Rows) -> npt.NDArray[np.int64]:
    """(n,) when each row was decided, in microseconds."""
    found: npt.NDArray[np.int64] = (
        rows.frame["decided_at"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    )
    return found


def _incumbents(
    source: DatabaseLog,
    learner: Learner,
    surface: Surface,
    since_us: int,
    until_us: int,
    metric: str | None = None,
) -> Rows:
    """The rows that the incumbent drew and of which every metric that judges is final."""
    rows = matured_rows(source, learner.surface, learner.slot, metric, None, until_us)
    guards = [surface.metrics[g.metric].maturity_us for g in surface.guardrails]
    final_by = until_us - max([surface.reward_horizon_us, *guards])
    at = _times(rows)
    mine = (rows.frame["learner"] == learner.id).to_numpy(dtype=bool)
    return rows.only(mine & (at > since_us) & (at <= final_by))


def _trained(
    store: Store,
    workspace: Workspace,
    learner: Learner,
    split: int,
    revisions: Revisions,
    warn: Warn,
) -> Policy:
    """The candidate as it was before the rows that judge it: a stored snapshot, or one made now."""
    before = store.read(partial(ask.closed_by, learner=learner.id, until_us=split))
    for row in store.read(partial(ask.lineage, learner=learner.id, spec=learner.spec)):
        if row.position.closes_at <= split and row.units is None:
            if row.passed >= _NEARLY_ALL * before and row.learned:
                data = store.read(partial(ask.snapshot_bytes, digest=row.digest))
                return restore(data, row.digest)
            break
    horizon = workspace.surfaces[learner.surface].learning_horizon_us
    learned = learn(
        store, workspace, learner,
        until_us=split + horizon, now_us=split, revisions=revisions, refit=True, warn=warn,
    )  # fmt: skip
    if learned is None:
        raise RequestError(
            "learner", f'"{learner.id}" has nothing to learn from before the rows that judge it'
        )
    return learned.policy


def _judged(
    source: DatabaseLog,
    judging: Rows,
    pmf: FloatArray,
    learner: Learner,
    candidate: Candidate,
    surface: Surface,
    level: float,
    split: int,
    until_us: int,
) -> Judgement:
    guarded = {}
    for guard in surface.guardrails:
        rows = _incumbents(source, learner, surface, split, until_us, guard.metric)
        # The same choices: the pmf goes with them.
        index = rows.frame["decision_id"].map(
            dict(zip(judging.frame["decision_id"], range(len(judging.frame)), strict=True))
        )
        kept = rows.only(index.notna().to_numpy(dtype=bool))
        order = index.dropna().to_numpy(dtype=np.intp)
        guarded[guard.metric] = _log(kept, surface.ranges.get(guard.metric)), pmf[order]
    return judge(
        _log(judging, surface.reward_range),
        pmf,
        guarded,
        surface.guardrails,
        margin=candidate.gate.margin,
        level=level,
    )


def _log(rows: Rows, reward_range: tuple[float, float] | None) -> EvaluationLog:
    """The rows in the order of their draws, each of which was a randomisation of its own."""
    try:
        return EvaluationLog(
            actions=rows.actions,
            action=_codes(rows),
            reward=rows.frame["reward"].to_numpy(dtype=np.float64),
            propensity=rows.frame["propensity"].to_numpy(dtype=np.float64),
            eligible=rows.eligible,
            pmf=rows.pmf,
            adaptive=True,
            reward_range=reward_range,
            max_weight=max_weight(rows) or np.inf,
        )
    except AttributionError as error:
        raise RequestError("learner", f"cannot be judged: {error}") from error


def _codes(rows: Rows) -> npt.NDArray[np.intp]:
    """(n,) the place of each row's action among all."""
    codes = {action: code for code, action in enumerate(rows.actions)}
    return np.array([codes[action] for action in rows.frame["action"]], dtype=np.intp)


def _agreement(rows: Rows, pmf: FloatArray) -> dict[str, Any]:
    """How far an apprentice would have done what was done."""
    agreed = pmf[np.arange(len(pmf)), _codes(rows)]
    several = rows.eligible.sum(axis=1) > 1
    share = float(agreed[several].mean()) if several.any() else 1.0
    return {
        "verdict": "apprentice",
        "agreement": share,
        "reason": f"it would have served what was served with probability {share:.3g} on average; "
        "an apprentice never serves: declare `mode: shadow` to have it judged",
    }


def _plain(judgement: Judgement) -> Mapping[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(judgement)
    return plain
