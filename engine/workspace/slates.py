"""Making slates, items and recommenders of validated parts; faults are noted as everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from engine.errors import RuleError
from engine.rules import parse
from engine.rules.columns import ITEM
from engine.workspace.item_rules import ItemRule
from engine.workspace.model import Items, Recommender, Slate
from engine.workspace.schema import (
    EMBEDDED,
    RELEVANCE,
    ItemsPart,
    KeepOutPart,
    RecommenderPart,
    SlatePart,
    SurfacePart,
)
from engine.workspace.source import Path_, Source
from recsys import rules as built_in
from recsys.catalogue import ROLES, Catalogue, ColumnKind, ItemSchema
from recsys.errors import RecsysError
from recsys.features import Feature, Freshness, Has, Number, Relevance
from recsys.plan import Calibration, Composing, Diversity, Exploration, Limit, Pin, SlatePlan
from recsys.rules import Grade
from recsys.rules import ItemRule as AnyRule
from recsys.scoring import LinearScorer
from recsys.settings import TrainSettings

_DAY_US = 86_400_000_000
_KINDS: Mapping[str, ColumnKind] = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "timestamp": "time",
    "list": "strings",
}
_DEADLINE_US = 100_000
_SOFT = frozenset({"boost", "bury"})

Refer = Callable[[Path_, str, Iterable[str], str], bool]


def compile_items(part: ItemsPart | None, source: Source) -> Items:
    """What is known of items; without a part, nothing but their ids."""
    part = part or ItemsPart()
    path: Path_ = ("items",)
    kinds = {name: _KINDS[attribute.type] for name, attribute in part.attributes.items()}
    roles: dict[str, str] = {}
    for name, attribute in part.attributes.items():
        role = attribute.role
        if role is None:
            continue
        place: Path_ = (*path, "attributes", name, "role")
        if role not in ROLES:
            source.fault(place, f"is no role; Known: {', '.join(sorted(ROLES))}", role)
        elif role in roles:
            source.fault(place, f"is the role of {roles[role]} already; keep one of them", role)
        else:
            roles[role] = name
    for role, allowed in ROLES.items():
        named = roles.get(role, role if role in kinds else None)
        if named is not None and kinds[named] not in allowed:
            fitting = sorted(type_ for type_, kind in _KINDS.items() if kind in allowed)
            source.fault(
                (*path, "attributes", named),
                f"must be of type {' or '.join(fitting)} to be the {role}; change type or name",
                part.attributes[named].type,
            )
            kinds.pop(named)
            roles.pop(role, None)
    types: dict[str, str] = {name: given.type for name, given in part.attributes.items()}
    schema = ItemSchema(kinds, roles, part.vector_size)
    return Items(schema, types, dict(part.interactions))


def compile_recommenders(
    parts: Mapping[str, RecommenderPart], source: Source, refer: Refer
) -> dict[str, Recommender]:
    """The recommenders that are declared, and the embedded one that every workspace has."""
    found = {EMBEDDED: Recommender(EMBEDDED)}
    for id_, part in parts.items():
        path: Path_ = ("recommenders", id_)
        if part.kind == "embedded":
            for key in ("url", "deadline", "fallback", "key_from"):
                if getattr(part, key) is not None:
                    source.fault((*path, key), "is only for `kind: http`; remove one of them")
            found[id_] = Recommender(id_, train=_settings((*path, "train"), part, source))
            continue
        if part.train:
            source.fault((*path, "train"), "is only for `kind: embedded`; remove one of them")
        if id_ == EMBEDDED:
            source.fault((*path, "kind"), "is of the one that is always here; rename yours", "http")
        if part.url is None:
            source.fault((*path, "url"), "is required by `kind: http`; add one, as https://…")
        fallback = part.fallback or EMBEDDED
        inner = [name for name, other in parts.items() if other.kind == "embedded"]
        refer((*path, "fallback"), fallback, {EMBEDDED, *inner}, "embedded recommender")
        found[id_] = Recommender(
            id_, part.url, part.deadline or _DEADLINE_US, fallback, part.key_from
        )
    return found


def _settings(path: Path_, part: RecommenderPart, source: Source) -> TrainSettings:
    for name in part.train:
        if name not in TrainSettings.__struct_fields__:
            near = get_close_matches(name, TrainSettings.__struct_fields__, n=1)
            hint = f'did you mean "{near[0]}"? ' if near else ""
            known = ", ".join(sorted(TrainSettings.__struct_fields__))
            source.fault((*path, name), f"is no setting; {hint}Known: {known}")
    known_only = {k: v for k, v in part.train.items() if k in TrainSettings.__struct_fields__}
    try:
        return msgspec.convert(known_only, TrainSettings)
    except (msgspec.ValidationError, RecsysError) as error:
        source.fault(path, f"cannot be: {error}", part.train)
        return TrainSettings()


def compile_slates(
    parts: Mapping[str, SlatePart],
    items: Items,
    recommenders: Iterable[str],
    surfaces: Mapping[str, SurfacePart],
    source: Source,
    refer: Refer,
) -> dict[str, Slate]:
    """The slates that are sound."""
    known = tuple(recommenders)
    found = {}
    for id_, part in parts.items():
        refer(("slates", id_, "recommender"), part.recommender, known, "recommender")
        on = {name: surface for name, surface in surfaces.items() if id_ in _slates_of(surface)}
        slate = _Slate(id_, part, items, on, source, refer).compiled()
        if slate is not None:
            found[id_] = slate
    return found


def _slates_of(surface: SurfacePart) -> set[str]:
    return {
        slate
        for slot in surface.slots.values()
        for action in slot.actions.values()
        for slate in action.slates
    }


class _Slate:
    """One slate's part, with the surfaces that show it."""

    def __init__(
        self,
        id_: str,
        part: SlatePart,
        items: Items,
        surfaces: Mapping[str, SurfacePart],
        source: Source,
        refer: Refer,
    ) -> None:
        self.id = id_
        self.part = part
        self.items = items
        self.surfaces = surfaces
        self.source = source
        self.refer = refer
        self.path: Path_ = ("slates", id_)

    def compiled(self) -> Slate | None:
        before = len(self.source.faults)
        part = self.part
        self._columns()
        self._from_context()
        rules = self._rules()
        composing = self._built("limits", self._composing)
        keep_out = self._built("keep_out", lambda: _kept_out(part.keep_out))
        grades = self._grades()
        pins = self._pins()
        scorer = self._scorer()
        if len(self.source.faults) > before or composing is None or keep_out is None:
            return None
        plan = self._built("", lambda: self._plan((*keep_out, *rules), grades, pins, composing))
        if plan is None:
            return None
        return Slate(
            plan=plan,
            owner=part.owner,
            recommender=part.recommender,
            inline=part.deliver == "inline",
            salt=part.salt or self.id,
            rules={rule.id: rule for rule in rules},
            seeds=part.from_context.seeds,
            owned=part.from_context.owned,
            exclude=part.from_context.exclude,
            personal=part.from_context.personal,
            scorer=scorer,
        )

    def _built(self, key: str, build: Callable[[], Any]) -> Any:
        """What is built; what the recommender has against it is a fault."""
        try:
            return build()
        except RecsysError as error:
            path = (*self.path, key) if key else self.path
            self.source.fault(path, f"cannot be: {error}")
            return None

    def _plan(
        self,
        rules: tuple[AnyRule, ...],
        grades: tuple[Grade, ...],
        pins: tuple[Pin, ...],
        composing: Composing,
    ) -> SlatePlan:
        part = self.part
        plan = SlatePlan(
            id=self.id,
            kind=part.kind,
            k=part.k,
            candidates=max(part.k, part.candidates),
            objective=part.objective,
            rules=rules,
            grades=grades,
            pins=pins,
            items=None if part.items is None else tuple(part.items),
            composing=composing,
        )
        plan.check(Catalogue.empty(self.items.schema))
        return plan

    def _columns(self) -> None:
        """Every attribute of items that the slate names must be declared."""
        part = self.part
        named: list[tuple[Path_, str]] = [(("limits", name), name) for name in part.limits]
        named += [(("keep_out", "stale", name), name) for name in part.keep_out.stale]
        named += [(("keep_out", "unless", name), name) for name in part.keep_out.unless]
        for used, cap in part.keep_out.over_cap.items():
            named += [(("keep_out", "over_cap", used), used), (("keep_out", "over_cap"), cap)]
        named += [(("grades", i, "column"), grade.column) for i, grade in enumerate(part.grades)]
        named += [
            (("pins", i, "column"), pin.column) for i, pin in enumerate(part.pins) if pin.column
        ]
        for key in ("diversity", "calibration"):
            declared = getattr(part, key)
            if declared is not None and declared.column:
                named.append(((key, "column"), declared.column))
        for place, name in named:
            self.refer((*self.path, *place), name, self.items.types, "attribute of items")

    def _from_context(self) -> None:
        """What the slate reads of the surfaces that show it must be there, and hold ids."""
        given, region = self.part.from_context, self.part.keep_out.other_regions
        named = {key: getattr(given, key) for key in ("seeds", "owned", "exclude")}
        for key, name in named.items():
            self._attribute(("from_context", key), name, ("string", "list"))
        self._attribute(("from_context", "personal"), given.personal, ("boolean",))
        self._attribute(("keep_out", "other_regions"), region, ("string",))

    def _attribute(self, key: Path_, name: str | None, types: tuple[str, ...]) -> None:
        """Note it unless each surface that shows the slate has an attribute of one of the types."""
        for surface, declared in self.surfaces.items() if name is not None else ():
            path, what = (*self.path, *key), f'attribute of surface "{surface}"'
            if name is None or not self.refer(path, name, declared.attributes, what):
                continue
            type_ = declared.attributes[name].type
            if type_ not in types:
                repair = f'is a {type_} on surface "{surface}"; name a {" or a ".join(types)}'
                self.source.fault(path, repair, name)

    def _rules(self) -> tuple[ItemRule, ...]:
        found = []
        own = {f"{ITEM}{name}": type_ for name, type_ in self.items.types.items()}
        for index, part in enumerate(self.part.rules):
            path: Path_ = (*self.path, "rules", index)
            if (part.amount is not None) != (part.kind in _SOFT):
                self.source.fault(
                    (*path, "amount"),
                    "is required of a boost or bury, and of no other; add it, or remove it",
                    part.amount,
                )
                continue
            rule = None
            # The types of the moment are those of each surface that shows the slate.
            for surface in self.surfaces.values() or [None]:
                given = surface.attributes if surface else {}
                types = own | {name: attribute.type for name, attribute in given.items()}
                try:
                    rule = parse(part.when, types)
                except RuleError as error:
                    message = f"{error} (at character {error.position + 1})"
                    self.source.fault((*path, "when"), message, part.when)
                    rule = None
                    break
            if rule is not None:
                found.append(
                    ItemRule(
                        id=part.id,
                        kind=part.kind,
                        rule=rule,
                        reason=part.reason,
                        owner=part.owner or self.part.owner,
                        amount=part.amount or 0.0,
                    )
                )
        return tuple(found)

    def _scorer(self) -> LinearScorer | None:
        """What predicts the objective: at first by relevance alone."""
        part = self.part
        if part.objective == RELEVANCE:
            if part.features:
                self.source.fault(
                    (*self.path, "features"), "need an `objective` that is a metric; name one"
                )
            return None
        for surface, declared in self.surfaces.items():
            what = f'metric of surface "{surface}"'
            self.refer((*self.path, "objective"), part.objective, declared.metrics, what)
        found: list[Feature] = [Relevance()]
        for index, text in enumerate(part.features):
            feature = self._feature((*self.path, "features", index), text)
            if feature is not None:
                found.append(feature)
        scorer: LinearScorer | None = self._built("features", lambda: LinearScorer(tuple(found)))
        return scorer

    def _feature(self, path: Path_, text: str) -> Feature | None:
        """``price``, ``freshness``, ``genre=drama`` or ``genre=@favourite``."""
        schema = self.items.schema
        column, equals, value = text.partition("=")
        if text == "freshness" and "freshness" not in schema.attributes:
            if schema.role("published") is None:
                self.source.fault(path, "needs an attribute of items that is `published`", text)
                return None
            return Freshness()
        if not self.refer(path, column, self.items.types, "attribute of items"):
            return None
        if not equals:
            if schema.attributes[column] != "number":
                type_ = self.items.types[column]
                self.source.fault(path, f"is a {type_}; write {column}=value for one", text)
                return None
            return Number(column)
        if schema.attributes[column] not in {"string", "strings"}:
            self.source.fault(path, "compares what is no string, nor a list of them", text)
            return None
        if not value.startswith("@"):
            return Has(column, value)
        self._attribute(path[2:], value[1:], ("string",))
        return Has(column, context=value[1:])

    def _grades(self) -> tuple[Grade, ...]:
        found: list[Grade] = []
        for index, part in enumerate(self.part.grades):
            path: Path_ = (*self.path, "grades", index)
            if (part.per is None) == (part.half_life is None):
                self.source.fault(path, "must say either `per` or `half_life`; keep one of them")
            elif part.per is not None:
                found.append(
                    built_in.PerUnit(part.column, part.amount, part.per, part.id, part.reason)
                )
            elif part.half_life is not None:
                days = part.half_life / _DAY_US
                found.append(built_in.Newer(part.amount, days, part.column, part.id, part.reason))
        return tuple(found)

    def _pins(self) -> tuple[Pin, ...]:
        found = []
        for index, part in enumerate(self.part.pins):
            if (part.item is None) == (part.column is None):
                self.source.fault(
                    (*self.path, "pins", index), "must name either `item` or `column`"
                )
                continue
            found.append(
                Pin(
                    position=part.position,
                    item_id=part.item or "",
                    column=part.column or "",
                    sponsored=part.sponsored,
                )
            )
        return tuple(found)

    def _composing(self) -> Composing:
        part = self.part
        diversity, calibration = part.diversity, part.calibration
        return Composing(
            limits=tuple(
                Limit(column=name, at_most=limit.at_most, unknown=limit.unknown)
                for name, limit in part.limits.items()
            ),
            diversity=None
            if diversity is None
            else Diversity(kind=diversity.kind, weight=diversity.weight, column=diversity.column),
            calibration=None
            if calibration is None
            else Calibration(
                column=calibration.column,
                weight=calibration.weight,
                ignore=tuple(calibration.ignore),
            ),
            exploration=Exploration(
                temperature=part.exploration.temperature, epsilon=part.exploration.epsilon
            ),
        )


def _kept_out(part: KeepOutPart) -> Sequence[AnyRule]:
    """The recommender's own rules that a slate asks for."""
    found: list[AnyRule] = []
    of_items: list[AnyRule] = []
    if part.out_of_stock:
        of_items.append(built_in.InStock())
    for column, limit_us in part.stale.items():
        of_items.append(
            built_in.Fresh(
                limit_us / 1e6, column, id=f"{column}_fresh", reason=f"its {column} is stale"
            )
        )
    if part.other_regions is not None:
        of_items.append(built_in.InRegion(part.other_regions))
    if part.incompatible:
        of_items.append(built_in.Compatible())
    for used, cap in part.over_cap.items():
        of_items.append(built_in.WithinCap(used, cap))
    for rule in of_items:
        for column, values in part.unless.items():
            rule = built_in.Except(rule, column, tuple(values))  # noqa: PLW2901  each exception in turn
        found.append(rule)
    if part.owned:
        found.append(built_in.NotOwned())
    for did, for_us in part.recent.items():
        past = {"purchase": "bought", "return": "returned", "finish": "finished"}.get(did, did)
        found.append(
            built_in.NotRecently(
                did, for_us / _DAY_US, id=f"recent_{did}", reason=f"{past} recently"
            )
        )
    return found
