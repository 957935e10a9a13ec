"""The shape of a workspace's files: every key, its type and its default.

Short forms (``device: string``, ``layout: flat``) are widened here, so that what validates has one
shape. References between parts are checked in :mod:`engine.workspace.check`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from recsys.call import LARGEST_K
from recsys.plan import MOST_CANDIDATES

RELEVANCE = "relevance"
"""The objective that needs no scorer: what a recommender proposes, by its own scores."""

EMBEDDED = "embedded"
"""The recommender that every workspace has."""

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
_UNITS_US = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
LONGEST_DURATION_US = 3_660 * _UNITS_US["d"]


def duration_us(value: object) -> int:
    """Microseconds of a duration such as ``24h``, ``7d`` or ``1.5h``.

    Raises
    ------
    ValueError
        If the text is no number with one of the units ms, s, m, h, d, w, or exceeds ten years.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a number and a unit (ms, s, m, h, d or w), such as 24h")
    microseconds = round(float(match[1]) * _UNITS_US[match[2]])
    if microseconds > LONGEST_DURATION_US:
        raise ValueError("is longer than ten years; shorten it")
    return microseconds


def _positive(microseconds: int) -> int:
    if microseconds <= 0:
        raise ValueError("must be longer than zero, such as 24h")
    return microseconds


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("is no IANA time zone; write one such as Europe/Berlin or UTC")
    return name


def _type_name_widened(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


def _number_widened(value: object) -> object:
    return {"at_most": value} if isinstance(value, int) else value


def _pin_widened(value: object) -> object:
    return {"action": value} if isinstance(value, str) else value


Id = Annotated[str, Field(pattern=ID_PATTERN)]
# Rules read these, and "-" is no part of a name there.
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Duration = Annotated[int, BeforeValidator(duration_us)]
PositiveDuration = Annotated[int, BeforeValidator(duration_us), AfterValidator(_positive)]
Probability = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
FeatureValue = bool | str | Finite
Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AttributePart(_Part):
    """A fact about the unit or the moment that rules and policies may read."""

    type: Literal["string", "integer", "number", "boolean", "timestamp", "list"]
    required: bool = False
    max_age: PositiveDuration | None = None


class MetricPart(_Part):
    """A number made of a decision's outcomes."""

    window: PositiveDuration
    lateness: Duration = 0
    aggregate: Literal["max", "min", "sum", "mean", "last", "first", "count"] = "sum"
    default: Finite = 0.0
    range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None


class GuardrailPart(_Part):
    """A metric that may not get worse by more than a margin while the reward improves."""

    direction: Literal["up", "down"]
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    protect: bool = False


class ActionPart(_Part):
    """One answer that a slot can give: what the renderer gets, and what a policy knows of it.

    ``slates`` are ranked lists that are filled where the action is chosen.
    """

    value: JsonValue
    features: dict[Name, FeatureValue] = {}
    slates: list[Id] = []


class RulePart(_Part):
    """A hard rule over attributes; it covers every action but the default, or those it names."""

    id: Id
    kind: Literal["eligibility", "suppression"]
    when: Annotated[str, Field(min_length=1)]
    reason: Text
    actions: Annotated[list[Id], Field(min_length=1)] | None = None
    owner: Text | None = None


class BudgetPart(_Part):
    """How often some actions may be served in a period, and whether their price paces them."""

    id: Id
    actions: Annotated[list[Id], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1)]
    period: PositiveDuration
    cost: Annotated[int, Field(ge=1)] = 1
    pace: bool = True
    variant: str | None = None


class SlotPart(_Part):
    """One choice on a surface."""

    default: Id
    actions: Annotated[dict[Id, ActionPart], Field(min_length=1)]
    policy: Id | None = None
    after: list[Id] = []
    rules: list[RulePart] = []
    budgets: list[BudgetPart] = []


class SurfacePart(_Part):
    """A place where users meet a decision."""

    owner: Text
    slots: Annotated[dict[Id, SlotPart], Field(min_length=1)]
    triggers: list[Id] = []
    require_trigger: bool = False
    attributes: dict[Name, Annotated[AttributePart, BeforeValidator(_type_name_widened)]] = {}
    metrics: dict[Id, MetricPart] = {}
    reward: dict[Id, Finite] = {}
    guardrails: dict[Id, GuardrailPart] = {}
    rules: list[RulePart] = []


class SegmentPart(_Part):
    """Units for whom a rule holds, and the weights of the actions they get."""

    id: Id
    when: Annotated[str, Field(min_length=1)]
    weights: dict[Id, Finite]


class GatePart(_Part):
    """What a candidate must show before it serves, and at which level of error."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    rows: Annotated[int, Field(ge=100)] = 1_000


class ConservativePart(_Part):
    """A share of the default's reward that is lost with a small probability only."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.05
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.1


class CandidatePart(_Part):
    """Another kind, or other parameters, that learns in a policy's place without serving."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, Any]

    kind: Annotated[str, Field(min_length=1)]
    mode: Literal["shadow", "apprentice"] = "shadow"
    gate: GatePart = GatePart()


class PolicyPart(_Part):
    """A policy: its kind, how it explores and draws; the kind's own parameters stand beside."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, Any]

    kind: Annotated[str, Field(min_length=1)]
    floor: Probability = 0.0
    draw: Literal["decision", "sticky"] = "decision"
    period: PositiveDuration | None = None
    salt: Id | None = None
    shared: bool = False
    segments: list[SegmentPart] = []
    candidate: CandidatePart | None = None
    when: Annotated[str, Field(min_length=1)] | None = None
    abstain: Annotated[int, Field(ge=0)] = 0
    conservative: ConservativePart | None = None


class HoldoutPart(_Part):
    """A share of units kept on the defaults, of every surface or of those named."""

    share: Probability
    surfaces: Annotated[list[Id], Field(min_length=1)] | None = None
    salt: Id | None = None
    owner: Text | None = None


class PinPart(_Part):
    """What a variant does with a slot: pins an action, or names a policy."""

    action: Id | None = None
    policy: Id | None = None


class VariantPart(_Part):
    """One side of an experiment."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    slots: dict[str, Annotated[PinPart, BeforeValidator(_pin_widened)]] = {}


class ExperimentPart(_Part):
    """Variants, compared on the units of one range of a layer."""

    range: Annotated[list[Probability], Field(min_length=2, max_length=2)]
    variants: Annotated[dict[Id, VariantPart], Field(min_length=1)]
    ramp: Probability = 1.0
    state: Literal["draft", "running", "paused", "ended"] = "running"
    baseline: Id | None = None
    salt: Id | None = None
    owner: Text | None = None


class ItemAttributePart(_Part):
    """A fact about items; ``role`` says what it means to the recommender."""

    type: Literal["string", "integer", "number", "boolean", "timestamp", "list"]
    role: str | None = None


class ItemsPart(_Part):
    """What is known of items, and which metrics are of things that units do with them."""

    attributes: dict[Name, Annotated[ItemAttributePart, BeforeValidator(_type_name_widened)]] = {}
    vector_size: Annotated[int, Field(ge=0, le=4096)] = 0
    interactions: dict[Id, Id] = {}


class ItemRulePart(_Part):
    """A rule over items in the rule language; boost and bury move items by an ``amount``."""

    id: Id
    kind: Literal["require", "suppress", "boost", "bury"]
    when: Annotated[str, Field(min_length=1)]
    reason: Text
    amount: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    owner: Text | None = None


class KeepOutPart(_Part):
    """What a slate keeps out without a rule's text."""

    out_of_stock: bool = False
    stale: dict[Name, PositiveDuration] = {}
    other_regions: Name | None = None
    owned: bool = False
    recent: dict[Id, PositiveDuration] = {}
    incompatible: bool = False
    over_cap: dict[Name, Name] = {}
    unless: dict[Name, Annotated[list[str], Field(min_length=1)]] = {}


class GradePart(_Part):
    """An amount that is the item's own: so much for a number, or for being new."""

    id: Id
    column: Name
    amount: Finite
    per: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    half_life: PositiveDuration | None = None
    reason: Text


class LimitPart(_Part):
    """At most so many items of a slate with the same value."""

    at_most: Annotated[int, Field(ge=1)]
    unknown: Literal["together", "apart"] = "together"


class SlatePinPart(_Part):
    """A position that is taken: by an item, or by the best of those that a column is true of."""

    position: Annotated[int, Field(ge=1)]
    item: str | None = None
    column: Name | None = None
    sponsored: bool = False


class DiversityPart(_Part):
    """Less for what resembles the items before it."""

    kind: Literal["mmr", "dpp"] = "mmr"
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3
    column: Name | None = None


class CalibrationPart(_Part):
    """A mix of an attribute's values like that of what the unit did."""

    column: Name
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    ignore: list[Id] = ["return"]


class ExplorationPart(_Part):
    """How positions are drawn from what the rules still allow."""

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    epsilon: Probability = 0.0


class FromContextPart(_Part):
    """Attributes of the surface that name items: looked at, had, or not to be shown.

    ``personal`` is one that says whether the unit agreed to be known by what it did.
    """

    seeds: Name | None = None
    owned: Name | None = None
    exclude: Name | None = None
    personal: Name | None = None


class SlatePart(_Part):
    """A ranked list: what may fill it, by which rules, and how its items are put in order."""

    owner: Text
    kind: Literal[
        "for_you",
        "because_you",
        "similar",
        "alternatives",
        "accessories",
        "bundles",
        "replenishment",
        "editorial",
    ] = "for_you"
    k: Annotated[int, Field(ge=1, le=LARGEST_K)] = 10
    candidates: Annotated[int, Field(ge=1, le=MOST_CANDIDATES)] = 1000
    objective: Id = RELEVANCE
    features: list[Text] = []
    recommender: Id = EMBEDDED
    deliver: Literal["inline", "reference"] = "inline"
    from_context: FromContextPart = FromContextPart()
    keep_out: KeepOutPart = KeepOutPart()
    rules: list[ItemRulePart] = []
    grades: list[GradePart] = []
    limits: dict[Name, Annotated[LimitPart, BeforeValidator(_number_widened)]] = {}
    pins: list[SlatePinPart] = []
    diversity: DiversityPart | None = None
    calibration: CalibrationPart | None = None
    exploration: ExplorationPart = ExplorationPart()
    items: list[str] | None = None
    salt: Id | None = None


class RecommenderPart(_Part):
    """Where candidates come from: a model trained here, or a service that is asked over HTTP."""

    kind: Literal["embedded", "http"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    deadline: PositiveDuration | None = None
    fallback: Id | None = None
    key_from: Name | None = None
    train: dict[Name, JsonValue] = {}


class WorkspacePart(_Part):
    """All that a workspace's files say, merged."""

    surfaces: Annotated[dict[Id, SurfacePart], Field(min_length=1)]
    policies: dict[Id, PolicyPart] = {}
    holdouts: dict[Id, HoldoutPart] = {}
    layers: dict[Id, dict[Id, ExperimentPart]] = {}
    items: ItemsPart | None = None
    slates: dict[Id, SlatePart] = {}
    recommenders: dict[Id, RecommenderPart] = {}
    time_zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
