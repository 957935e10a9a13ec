"""Reports over a log: off-policy values of targets for one slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution import AttributionError, EvaluationLog, evaluate, join_decisions
from attribution.diagnostics import is_adaptive
from engine.decide import policy_context
from engine.errors import NotFoundError, ReportError
from engine.ids import to_datetime, to_microseconds
from engine.logsource import LogSource, within
from engine.models import fresh
from engine.request import Attributes, read_attributes
from engine.store import SnapshotRow
from engine.workspace import Learner, PolicySpec, Surface, Workspace, slot_attribute
from experiments import UnitRange
from policies import Action, Feedback, Policy, PolicyError, apply_floor

ESTIMATORS = ("ips", "snips", "dm", "dr")
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """The draws of one slot that can be evaluated, one row each, and what was left out.

    ``eligible`` and ``pmf`` are (n, k) over ``actions``.
    """

    surface: Surface
    workspace: Workspace
    frame: pd.DataFrame
    actions: tuple[str, ...]
    eligible: BoolArray
    pmf: FloatArray | None
    left_out: Mapping[str, int]

    def only(self, chosen: BoolArray) -> Rows:
        """The chosen rows, (n,), in the order of their decisions."""
        order = np.argsort(self.frame["decided_at"].to_numpy(), kind="stable")
        kept = order[chosen[order]]
        return replace(
            self,
            frame=self.frame.iloc[kept].reset_index(drop=True),
            eligible=self.eligible[kept],
            pmf=None if self.pmf is None else self.pmf[kept],
        )

    @property
    def sticky(self) -> bool:
        """Whether some row is a draw with its rewards summed over a period."""
        return bool(self.frame["expires_at"].notna().any())


def ope_report(
    source: LogSource,
    surface: str,
    slot: str,
    targets: Sequence[str],
    *,
    against: str | None = None,
    metric: str | None = None,
    units: UnitRange | None = None,
    as_of_us: int,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Off-policy values of targets for one slot, the other slots' policies held fixed.

    JSON data: ``results``, ``comparisons`` and ``diagnostics`` as
    :meth:`attribution.report.EvaluationReport.to_json` has them, and what was left out. A target
    is a policy, ``POLICY@SNAPSHOT`` (a digest or its beginning), an action, ``uniform``, or the
    path of a CSV or Parquet file with ``decision_id`` and a column of probabilities per action.

    Raises
    ------
    NotFoundError
        If the surface, slot, metric, policy or snapshot is not known.
    ReportError
        If the log cannot support the report.
    """
    if not targets:
        raise ReportError("`--target` is missing; name a policy, an action, uniform or a file")
    rows = matured_rows(source, surface, slot, metric, units, as_of_us)
    notes: list[str] = []
    more = [against] if against and against not in (*targets, "logging", "all") else []
    names = [*targets, *more]
    pmfs = {name: _target(source, rows, slot, name, units, notes) for name in names}
    try:
        log = EvaluationLog.from_frame(
            rows.frame,
            action="action",
            reward="reward",
            propensity="propensity",
            unit="unit",
            actions=rows.actions,
            eligible=rows.eligible,
            pmf=rows.pmf,
            context=[c for c in rows.frame.columns if c.startswith("context.")],
            time="decided_at",
            logger="logger",
            adaptive=_adaptive(rows),
            decision_id="decision_id",
            reward_range=_reward_range(rows, metric),
            max_weight=max_weight(rows),
        )
        report = evaluate(log, pmfs, _estimators(log), against=against, alpha=alpha)
    except AttributionError as error:
        raise ReportError(str(error)) from error
    return {
        "surface": surface,
        "slot": slot,
        "metric": metric or "reward",
        "row": "draw" if rows.sticky else "decision",
        **report.to_json(),
        "left_out": dict(rows.left_out),
        "notes": [*report.notes, *notes],
    }


def _estimators(log: EvaluationLog) -> tuple[str, ...]:
    """The usual ones, and that for logs that learned where this one did and tells how."""
    if log.pmf is None or log.logger is None or not is_adaptive(log):
        return ESTIMATORS
    if np.bincount(log.logger).min() < 2:
        return ESTIMATORS
    return (*ESTIMATORS, "aw_aipw")


def matured_rows(
    source: LogSource,
    surface_id: str,
    slot: str,
    metric: str | None,
    units: UnitRange | None,
    as_of_us: int,
) -> Rows:
    workspace = source.workspace()
    surface = workspace.surfaces.get(surface_id)
    if surface is None:
        known = ", ".join(workspace.surfaces)
        raise NotFoundError("surface", f'is "{surface_id}", which is not declared; known: {known}')
    if slot not in surface.slots:
        known = ", ".join(surface.slots)
        raise NotFoundError("slot", f'is "{slot}", which is not declared; known: {known}')
    reward = surface.reward if metric is None else {metric: 1.0}
    if metric is not None and metric not in surface.metrics:
        known = ", ".join(surface.metrics) or "none"
        raise NotFoundError("metric", f'is "{metric}", which is not declared; known: {known}')
    if not reward:
        raise ReportError(f'surface "{surface_id}" declares no reward; give --metric')
    choices = source.choices(surface_id, slot).to_pandas()
    total = len(choices)
    chosen = choices["policy"].notna() | (choices["origin"] == "import")
    usable = choices["fallback"].isna() & chosen
    choices = choices[usable]
    left_out = {"not_drawn": int(total - len(choices))}
    if units is not None:
        inside = within(units, choices["unit"])
        left_out["other_units"] = int((~inside).sum())
        choices = choices[inside]
    choices, lost = _served_as_drawn(choices)
    left_out["draws_void"] = lost
    try:
        joined = join_decisions(
            choices,
            source.outcomes(list(reward)).to_pandas(),
            [surface.metrics[name] for name in reward],
            pd.Timestamp(to_datetime(as_of_us)),
            reward,
        )
    except AttributionError as error:
        raise ReportError(str(error)) from error
    left_out |= {"open_windows": joined.open, "late_outcomes": sum(joined.late.values())}
    frame, left_out["open_periods"] = _one_row_a_draw(joined.frame, surface, as_of_us)
    if frame.empty:
        told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in left_out.items())
        raise ReportError(
            f'no decision of "{surface_id}.{slot}" was drawn and has matured yet ({told}); '
            "there is nothing to evaluate"
        )
    actions, eligible, pmf = _matrices(frame, tuple(surface.slots[slot].actions))
    frame["logger"] = frame["snapshot"].fillna(frame["policy"]).fillna("import")
    frame = _with_context(frame)
    for earlier in surface.slots[slot].after:
        got = source.choices(surface_id, earlier).to_pandas().set_index("decision_id")["action"]
        found = frame["decision_id"].map(got).astype(object)
        frame[f"context.{slot_attribute(earlier)}"] = found.where(found.notna(), None)
    return Rows(surface, workspace, frame, actions, eligible, pmf, left_out)


def _served_as_drawn(choices: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The choices whose draw is among them, and how many have lost theirs to a void decision."""
    drawn = set(choices.loc[choices["drawn"], "draw_id"])
    orphaned = choices["draw_id"].notna() & ~choices["draw_id"].isin(drawn)
    return choices[~orphaned], int(orphaned.sum())


def _one_row_a_draw(
    frame: pd.DataFrame, surface: Surface, as_of_us: int
) -> tuple[pd.DataFrame, int]:
    """Sticky draws as one row each, at the context of the draw, the reward summed over it.

    Also how many draws are left out because their period or its windows are still open.
    """
    sticky = frame["expires_at"].notna()
    if not sticky.any():
        return frame.reset_index(drop=True), 0
    uses = frame[sticky]
    sums = uses.groupby("draw_id")["reward"].sum()
    made = uses[uses["drawn"]].copy()
    ripe_by = pd.Timestamp(to_datetime(as_of_us - surface.reward_horizon_us))
    ripe = made["expires_at"] <= ripe_by
    made["reward"] = made["draw_id"].map(sums)
    rows = pd.concat([frame[~sticky], made[ripe]]).sort_values("decided_at")
    return rows.reset_index(drop=True), int((~ripe).sum())


def _matrices(
    frame: pd.DataFrame, declared: tuple[str, ...]
) -> tuple[tuple[str, ...], BoolArray, FloatArray | None]:
    """All actions, (n, k) eligibility and, if every row has one, the (n, k) logged pmf."""
    lengths = frame["eligible"].str.len().to_numpy()
    flat = np.concatenate(frame["eligible"].to_list())
    actions = tuple(dict.fromkeys([*declared, *flat.tolist()]))
    row = np.repeat(np.arange(len(frame)), lengths)
    column = pd.Index(actions).get_indexer(pd.Index(flat))
    eligible = np.zeros((len(frame), len(actions)), dtype=bool)
    eligible[row, column] = True
    # A choice without a draw had one action left: it was certain.
    certain = frame["pmf"].isna() & (lengths == 1)
    if (frame["pmf"].isna() & ~certain).any():
        return actions, eligible, None
    pmf = np.zeros(eligible.shape)
    probabilities = [
        np.ones(1) if single else p for p, single in zip(frame["pmf"], certain, strict=True)
    ]
    pmf[row, column] = np.concatenate(probabilities)
    return actions, eligible, pmf


def _with_context(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a column ``context.<attribute>`` for each scalar attribute logged."""
    contexts = [msgspec.json.decode(text) for text in frame["context"]]
    table = pd.DataFrame(contexts, index=frame.index)
    scalars = [c for c in table.columns if not table[c].map(lambda v: isinstance(v, list)).any()]
    # Mixed and missing values are categories to a reward model; plain numbers stay numbers.
    return pd.concat([frame, table[scalars].add_prefix("context.")], axis=1)


def _reward_range(rows: Rows, metric: str | None) -> tuple[float, float] | None:
    """The range of one row's reward: not known of a sum over a sticky period."""
    if rows.sticky:
        return None
    return rows.surface.reward_range if metric is None else rows.surface.ranges.get(metric)


def _adaptive(rows: Rows) -> bool | None:
    """Whether some policy learned while it drew; unknown of a log that others made."""
    if (rows.frame["origin"] == "import").all():
        return None
    snapshots = rows.frame.dropna(subset=["learner"]).groupby("learner")["snapshot"].nunique()
    return bool((snapshots > 1).any())


def max_weight(rows: Rows) -> float | None:
    """One over the least probability that a floor guarantees, where every row's policy has one."""
    floor = rows.frame["floor"].to_numpy(dtype=float)
    drawn = rows.eligible.sum(axis=1)
    least = np.where(drawn == 1, 1.0, floor / drawn)
    return float(1 / least.min()) if 0 < least.min() < 1 else None


def _target(
    source: LogSource,
    rows: Rows,
    slot: str,
    name: str,
    units: UnitRange | None,
    notes: list[str],
) -> FloatArray:
    """(n, k) pmf of a target over the rows' eligible actions."""
    if name == "uniform":
        shares: FloatArray = rows.eligible / rows.eligible.sum(axis=1, keepdims=True)
        return shares
    if name in rows.actions:
        return _always(source, rows, slot, name)
    policy_name, _, digest = name.partition("@")
    spec = rows.workspace.policies.get(policy_name)
    if spec is None and Path(name).suffix in {".csv", ".parquet"}:
        return _from_file(rows, Path(name))
    if spec is None:
        known = ", ".join([*rows.workspace.policies, *rows.actions, "uniform"])
        raise NotFoundError("target", f'is "{name}", which is not known; known: {known}')
    policy, row = _restored(source, rows, slot, spec, digest)
    if row is not None:
        _note_overlap(rows, name, row, units, notes)
    return policy_pmfs(source, rows, slot, spec, policy)


def _always(source: LogSource, rows: Rows, slot: str, action: str) -> FloatArray:
    """The action where it is eligible, else the default that then was, as it would be served."""
    index = rows.actions.index(action)
    pmf = np.zeros(rows.eligible.shape)
    here = rows.eligible[:, index]
    pmf[here, index] = 1.0
    for digest in rows.frame.loc[~here, "revision"].unique():
        made_by = source.revision(digest).surfaces[rows.surface.id].slots[slot]
        of_it = ~here & (rows.frame["revision"] == digest).to_numpy()
        pmf[of_it, rows.actions.index(made_by.default)] = 1.0
    return pmf


def _from_file(rows: Rows, file: Path) -> FloatArray:
    if not file.is_file():
        raise NotFoundError("target", f'is "{file}", which is no file')
    try:
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    # All that pandas and Arrow say of a file's content are ValueErrors.
    except (OSError, ValueError) as error:
        raise ReportError(f"{file} cannot be read: {error}") from error
    missing = [c for c in ("decision_id", *rows.actions) if c not in table.columns]
    if missing:
        raise ReportError(f"{file} has no column {missing[0]}; give decision_id and every action")
    repeated = table["decision_id"].duplicated()
    if repeated.any():
        raise ReportError(
            f"{file} repeats a decision_id in {int(repeated.sum()):,} rows, first in row "
            f"{int(repeated.argmax())} (it is {table['decision_id'][repeated.argmax()]}); "
            "give each decision once"
        )
    for action in rows.actions:
        if not pd.api.types.is_numeric_dtype(table[action]):
            raise ReportError(
                f"{file} has a column {action} of type {table[action].dtype}; give probabilities"
            )
    found = table.set_index("decision_id").reindex(rows.frame["decision_id"])[list(rows.actions)]
    absent = int(found.isna().any(axis=1).sum())
    if absent:
        raise ReportError(f"{file} lacks {absent:,} of the decisions evaluated; give all of them")
    return found.to_numpy(dtype=np.float64)


def _restored(
    source: LogSource, rows: Rows, slot: str, spec: PolicySpec, digest: str
) -> tuple[Policy, SnapshotRow | None]:
    """A policy as it was learned: from the snapshot named, or its newest for this slot."""
    if not spec.learns:
        return fresh(spec), None
    # What a candidate is, only the digest of a snapshot says: by name the declared policy is meant.
    pupils = rows.workspace.pupils if digest else tuple(rows.workspace.learners.values())
    learners = [
        learner
        for learner in pupils
        if (learner.policy.id, learner.surface, learner.slot) == (spec.id, rows.surface.id, slot)
    ]
    found = [row for row in source.snapshots() if _is_of(row, learners)]
    if digest:
        found = [row for row in found if row.digest.startswith(digest)]
    if not found:
        known = ", ".join(learner.id for learner in learners) or "none"
        raise NotFoundError(
            "target",
            f'is "{spec.id}{"@" + digest if digest else ""}", of which no snapshot is stored '
            f"for this slot (learners: {known}); run `evenhand learn` first",
        )
    # Each learner's newest, as it would serve; of several learners that which learned most.
    newest = {row.learner: row for row in found}
    row = max(newest.values(), key=lambda row: (row.learned, row.seq))
    return source.policy(row.digest), row


def _is_of(row: SnapshotRow, learners: Sequence[Learner]) -> bool:
    return any(row.learner == learner.id and row.spec == learner.spec for learner in learners)


def _note_overlap(
    rows: Rows, name: str, row: SnapshotRow, units: UnitRange | None, notes: list[str]
) -> None:
    """Say so where a target learned from rows that it is judged on."""
    if row.learned == 0 or _apart(row.units, units):
        return
    closes = rows.frame["expires_at"].fillna(rows.frame["decided_at"])
    first = to_microseconds(closes.min().to_pydatetime())
    if first <= row.position.closes_at:
        notes.append(
            f"{name} learned from rows that it is judged on here, so its value is too high: "
            "learn on some units and evaluate on others, with --units"
        )


def _apart(learned: str | None, judged: UnitRange | None) -> bool:
    if learned is None or judged is None:
        return False
    low, _, high = learned.partition(":")
    return float(high) <= judged.low or judged.high <= float(low)


def policy_pmfs(
    source: LogSource, rows: Rows, slot: str, spec: PolicySpec, policy: Policy
) -> FloatArray:
    """(n, k) pmf that the policy, with its floor, has at each row's context and eligible set."""
    contexts = _contexts(source, rows, slot, spec)
    known: dict[str, Action] = {}
    for digest in rows.frame["revision"].unique():
        known |= source.revision(digest).surfaces[rows.surface.id].slots[slot].actions
    known |= rows.surface.slots[slot].actions
    sets, inverse = np.unique(rows.eligible, axis=0, return_inverse=True)
    pmf = np.zeros(rows.eligible.shape)
    for index, chosen in enumerate(sets):
        here = np.flatnonzero(inverse == index)
        columns = np.flatnonzero(chosen)
        actions = [known[rows.actions[c]] for c in columns]
        try:
            own = policy.pmfs([contexts[i] for i in here], actions)
        except PolicyError as error:
            raise ReportError(f"policy {spec.id} cannot be evaluated here: {error}") from error
        pmf[np.ix_(here, columns)] = apply_floor(own, spec.floor)
    return pmf


def feedback_of(source: LogSource, rows: Rows, slot: str) -> list[Feedback]:
    """The rows as a policy learns from them, in their order."""
    actions: dict[tuple[str, ...], tuple[Action, ...]] = {}
    known: dict[str, Action] = {}
    for digest in rows.frame["revision"].unique():
        known |= source.revision(digest).surfaces[rows.surface.id].slots[slot].actions
    known |= rows.surface.slots[slot].actions
    columns = zip(
        _attributes(source, rows),
        _earlier(rows, slot),
        rows.frame["eligible"],
        rows.frame["action"],
        rows.frame["propensity"],
        rows.frame["reward"],
        strict=True,
    )
    made = []
    for attributes, earlier, eligible, action, propensity, reward in columns:
        ids = tuple(eligible)
        if ids not in actions:
            actions[ids] = tuple(known[id_] for id_ in ids)
        made.append(
            Feedback(
                {**attributes.features, **earlier},
                actions[ids],
                action,
                float(propensity),
                float(reward),
            )
        )
    return made


def _contexts(
    source: LogSource, rows: Rows, slot: str, spec: PolicySpec
) -> list[Mapping[str, Any]]:
    """What the policy would have read at each row, under the revision that declared it."""
    both = zip(_attributes(source, rows), _earlier(rows, slot), strict=True)
    return [policy_context(spec, attributes, earlier) for attributes, earlier in both]


def _earlier(rows: Rows, slot: str) -> list[dict[str, str | None]]:
    """What the slots before got at each row, by the names that policies read."""
    names = [slot_attribute(earlier) for earlier in rows.surface.slots[slot].after]
    got = rows.frame[[f"context.{name}" for name in names]].to_numpy(dtype=object)
    return [dict(zip(names, each, strict=True)) for each in got]


def _attributes(source: LogSource, rows: Rows) -> list[Attributes]:
    """What was known at each row, under the revision that declared it."""
    columns = zip(
        rows.frame["context"], rows.frame["decided_at"], rows.frame["revision"], strict=True
    )
    return [
        read_attributes(
            source.revision(digest).surfaces[rows.surface.id],
            msgspec.json.decode(text),
            to_microseconds(at.to_pydatetime()),
        )
        for text, at, digest in columns
    ]
