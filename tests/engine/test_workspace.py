"""Workspaces: what loads, what is refused and how it is told, and what a revision stands for."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import pytest
from pydantic import BaseModel

from engine.errors import ConfigurationError
from engine.workspace import (
    Workspace,
    canonical_content,
    load_workspace,
    workspace_from_content,
)
from engine.workspace.schema import PolicyPart, WorkspacePart
from experiments import assign
from policies import POLICY_KINDS, describe_parameters
from tests.engine.build import SAMPLE, decided, serving_of, workspace_of

SOUND = """\
surfaces:
  home:
    owner: growth@example.com
    triggers: [start]
    attributes: {weeks: integer, device: string}
    metrics: {watch: {window: 1h}}
    reward: {watch: 1.0}
    guardrails: {watch: {direction: up}}
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2, features: {depth: 2}}}
        rules:
          - {id: r, kind: eligibility, actions: [B], when: "weeks >= 1", reason: new}
      hero:
        default: X
        actions: {X: {value: 1}, Y: {value: 2}}
policies:
  p: {kind: uniform}
holdouts:
  h: {share: 0.1}
layers:
  l:
    e:
      range: [0.0, 0.5]
      variants:
        control: {slots: {home.layout: A}}
        other: {slots: {home.layout: {policy: p}}}
"""
RULE = '          - {id: r, kind: eligibility, actions: [B], when: "weeks >= 1", reason: new}\n'
POLICY = "p: {kind: uniform}"
VARIANTS = (
    "        control: {slots: {home.layout: A}}\n"
    "        other: {slots: {home.layout: {policy: p}}}\n"
)


class Case(NamedTuple):
    """A fault put into SOUND (or a whole text), and what is told: line, field, value, message."""

    name: str
    old: str | None
    new: str
    told: tuple[tuple[int | None, str, str, str], ...]


BROKEN = [
    Case(
        "a misspelt section",
        "policies:\n",
        "polices:\n",
        (
            (12, "surfaces.home.slots.layout.policy", '"p"', "is no declared policy"),
            (
                19,
                "polices",
                '{"p":{"kind":"uniform"}}',
                'is not a known key; did you mean "policies"?',
            ),
            (
                29,
                "layers.l.e.variants.other.slots.home.layout.policy",
                '"p"',
                "is no declared policy",
            ),
        ),
    ),
    Case(
        "a misspelt required key",
        "    owner:",
        "    ownr:",
        (
            (2, "surfaces.home.owner", "", "is required"),
            (
                3,
                "surfaces.home.ownr",
                '"growth@example.com"',
                'is not a known key; did you mean "owner"?',
            ),
        ),
    ),
    Case(
        "an owner that is a number",
        "growth@example.com",
        "5",
        ((3, "surfaces.home.owner", "5", "input should be a valid string"),),
    ),
    Case(
        "a misspelt optional key",
        "    triggers:",
        "    trigger:",
        (
            (
                4,
                "surfaces.home.trigger",
                '["start"]',
                'is not a known key; did you mean "triggers"?',
            ),
        ),
    ),
    Case(
        "a surface without slots",
        None,
        "surfaces: {home: {owner: o}}\n",
        ((1, "surfaces.home.slots", "", "is required"),),
    ),
    Case(
        "a surface with no slot in it",
        None,
        "surfaces: {home: {owner: o, slots: {}}}\n",
        ((1, "surfaces.home.slots", "{}", "is empty"),),
    ),
    Case(
        "an id with a space",
        "      hero:\n",
        "      'the hero':\n",
        (
            (
                16,
                "surfaces.home.slots.the hero",
                '{"actions":{"X":{"value":1},"Y":{"va',
                "must be 1 to 64 letters, digits, _ or -",
            ),
        ),
    ),
    Case(
        "an id of 65 characters",
        "      hero:\n",
        "      hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh:\n",
        (
            (
                16,
                "surfaces.home.slots.hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh",
                '{"actions":{"X":{"value":1},"Y":{"va',
                "must be 1 to 64 letters, digits, _ or -",
            ),
        ),
    ),
    Case(
        "an unknown attribute type",
        "weeks: integer",
        "weeks: int",
        (
            (
                5,
                "surfaces.home.attributes.weeks",
                '"int"',
                "must be one of 'string', 'integer', 'number', 'boolean', 'timestamp' o",
            ),
        ),
    ),
    Case(
        "an age limit without a unit",
        "weeks: integer",
        "weeks: {type: integer, max_age: 5}",
        (
            (
                5,
                "surfaces.home.attributes.weeks.max_age",
                "5",
                "write a number and a unit (ms, s, m, h, d or w), such as 24h",
            ),
        ),
    ),
    Case(
        "a trigger demanded of none",
        "    triggers: [start]",
        "    require_trigger: true",
        ((4, "surfaces.home.require_trigger", "true", "needs `triggers` to choose from"),),
    ),
    Case(
        "a surface rule that names actions",
        "    slots:\n",
        "    rules:\n"
        "      - {id: s, kind: eligibility, when: 'weeks > 1', reason: x, actions: [B]}\n"
        "    slots:\n",
        ((10, "surfaces.home.rules[0].actions", '["B"]', "cannot stand on a surface's rule"),),
    ),
    Case(
        "a window without a unit",
        "window: 1h",
        "window: 60",
        (
            (
                6,
                "surfaces.home.metrics.watch.window",
                "60",
                "write a number and a unit (ms, s, m, h, d or w), such as 24h",
            ),
        ),
    ),
    Case(
        "a window of nothing",
        "window: 1h",
        "window: 0s",
        (
            (
                6,
                "surfaces.home.metrics.watch.window",
                '"0s"',
                "must be longer than zero, such as 24h",
            ),
        ),
    ),
    Case(
        "a lateness of a century",
        "window: 1h",
        "window: 1h, lateness: 5300w",
        ((6, "surfaces.home.metrics.watch.lateness", '"5300w"', "is longer than ten years"),),
    ),
    Case(
        "an unknown aggregate",
        "window: 1h",
        "window: 1h, aggregate: median",
        (
            (
                6,
                "surfaces.home.metrics.watch.aggregate",
                '"median"',
                "must be one of 'max', 'min', 'sum', 'mean', 'last', 'first' or 'count'",
            ),
        ),
    ),
    Case(
        "a reward over an unknown metric",
        "reward: {watch: 1.0}",
        "reward: {wotch: 1.0}",
        (
            (
                7,
                "surfaces.home.reward.wotch",
                '"wotch"',
                'is no declared metric of the surface; did you mean "watch"?',
            ),
        ),
    ),
    Case(
        "a reward that is not a number",
        "reward: {watch: 1.0}",
        "reward: {watch: .nan}",
        ((7, "surfaces.home.reward.watch", '"nan"', "must be finite"),),
    ),
    Case(
        "a reward that is a truth value",
        "reward: {watch: 1.0}",
        "reward: {watch: true}",
        ((7, "surfaces.home.reward.watch", "true", "input should be a valid number"),),
    ),
    Case(
        "a guardrail over an unknown metric",
        "guardrails: {watch:",
        "guardrails: {click:",
        ((8, "surfaces.home.guardrails.click", '"click"', "is no declared metric of the surface"),),
    ),
    Case(
        "a guardrail without a direction",
        "{direction: up}",
        "{direction: sideways}",
        (
            (
                8,
                "surfaces.home.guardrails.watch.direction",
                '"sideways"',
                "must be one of 'up' or 'down'",
            ),
        ),
    ),
    Case(
        "a guardrail with a negative margin",
        "{direction: up}",
        "{direction: up, margin: -0.1}",
        (
            (
                8,
                "surfaces.home.guardrails.watch.margin",
                "-0.1",
                "input should be greater than or equal to 0",
            ),
        ),
    ),
    Case(
        "a slot without a default",
        "        default: X\n",
        "",
        ((16, "surfaces.home.slots.hero.default", "", "is required"),),
    ),
    Case(
        "a default that is no action",
        "default: X",
        "default: Z",
        ((17, "surfaces.home.slots.hero.default", '"Z"', "is no declared action of the slot"),),
    ),
    Case(
        "an unknown policy in a slot",
        "policy: p\n",
        "policy: q\n",
        ((12, "surfaces.home.slots.layout.policy", '"q"', "is no declared policy"),),
    ),
    Case(
        "an action without a value",
        "Y: {value: 2}",
        "Y: {}",
        ((18, "surfaces.home.slots.hero.actions.Y.value", "", "is required"),),
    ),
    Case(
        "an action whose value is a date",
        "Y: {value: 2}",
        "Y: {value: 2026-01-01}",
        (
            (
                18,
                "surfaces.home.slots.hero.actions.Y.value",
                '"2026-01-01"',
                "is a YAML type that JSON lacks",
            ),
        ),
    ),
    Case(
        "an action whose value is infinite",
        "Y: {value: 2}",
        "Y: {value: [1, .inf]}",
        ((18, "surfaces.home.slots.hero.actions.Y.value[1]", '"inf"', "must be finite"),),
    ),
    Case(
        "an action whose value is beyond 64 bits",
        "Y: {value: 2}",
        "Y: {value: 9223372036854775808}",
        (
            (
                18,
                "surfaces.home.slots.hero.actions.Y.value",
                '"9223372036854775808"',
                "is beyond 64 bits",
            ),
        ),
    ),
    Case(
        "an action whose value is half a character",
        "Y: {value: 2}",
        'Y: {value: "\\ud800"}',
        (
            (
                18,
                "surfaces.home.slots.hero.actions.Y.value",
                "\"'\\\\ud800'\"",
                "holds half of a surrogate pair, which is no text",
            ),
        ),
    ),
    Case(
        "an action whose id is a number",
        "Y: {value: 2}",
        "2: {value: 2}",
        ((18, "surfaces.home.slots.hero.actions.2", '"2"', "is not text"),),
    ),
    Case(
        "a feature that is a list",
        "depth: 2",
        "depth: [2]",
        (
            (
                13,
                "surfaces.home.slots.layout.actions.B.features.depth",
                "[2]",
                "input should be a valid boolean",
            ),
        ),
    ),
    Case(
        "a feature too large to square",
        "depth: 2",
        "depth: 1.0e+150",
        (
            (
                13,
                "surfaces.home.slots.layout.actions.B.features",
                '{"depth":1e150}',
                "action 'B': 'depth' is 1e+150. Give a finite number, a string, a bool,",
            ),
        ),
    ),
    Case(
        "a feature of two types",
        "A: {value: 1}",
        "A: {value: 1, features: {depth: deep}}",
        (
            (
                13,
                "surfaces.home.slots.layout.actions.B.features.depth",
                "2.0",
                "is a number, but a string on another action",
            ),
        ),
    ),
    Case(
        "a rule over the default",
        "actions: [B]",
        "actions: [A]",
        (
            (
                15,
                "surfaces.home.slots.layout.rules[0].actions[0]",
                '"A"',
                "is the slot's default, which must always be servable",
            ),
        ),
    ),
    Case(
        "a rule over an unknown action",
        "actions: [B]",
        "actions: [B, Z]",
        (
            (
                15,
                "surfaces.home.slots.layout.rules[0].actions[1]",
                '"Z"',
                "is no declared action of the slot",
            ),
        ),
    ),
    Case(
        "a rule over no action",
        "actions: [B]",
        "actions: []",
        ((15, "surfaces.home.slots.layout.rules[0].actions", "[]", "is empty"),),
    ),
    Case(
        "a rule that does not parse",
        "weeks >= 1",
        "weeks >=",
        (
            (
                15,
                "surfaces.home.slots.layout.rules[0].when",
                '"weeks >="',
                "at character 8 stands the end of the rule: write an attribute, a liter",
            ),
        ),
    ),
    Case(
        "a rule over an undeclared attribute",
        "weeks >= 1",
        "age >= 1",
        (
            (
                15,
                "surfaces.home.slots.layout.rules[0].when",
                '"age >= 1"',
                '"age" at character 0 is not a declared attribute:',
            ),
        ),
    ),
    Case(
        "a rule over an attribute of another type",
        "weeks >= 1",
        "weeks == 'one'",
        (
            (
                15,
                "surfaces.home.slots.layout.rules[0].when",
                "\"weeks == 'one'\"",
                '"==" at character 6 compares `weeks` (a number) with a string, which n',
            ),
        ),
    ),
    Case(
        "a rule over an unknown feature",
        "weeks >= 1",
        "action.width > 1",
        (
            (
                15,
                "surfaces.home.slots.layout.rules[0].when",
                '"action.width > 1"',
                '"action.width" at character 0 is not a declared attribute: did you mea',
            ),
        ),
    ),
    Case(
        "a rule that is no text",
        '"weeks >= 1"',
        "true",
        (
            (
                15,
                "surfaces.home.slots.layout.rules[0].when",
                "true",
                "input should be a valid string",
            ),
        ),
    ),
    Case(
        "a rule of an unknown kind",
        "kind: eligibility",
        "kind: eligible",
        (
            (
                15,
                "surfaces.home.slots.layout.rules[0].kind",
                '"eligible"',
                "must be one of 'eligibility' or 'suppression'",
            ),
        ),
    ),
    Case(
        "a rule without a reason",
        ", reason: new",
        "",
        ((15, "surfaces.home.slots.layout.rules[0].reason", "", "is required"),),
    ),
    Case(
        "two rules alike",
        RULE,
        RULE * 2,
        ((14, "surfaces.home.slots.layout.rules", '"r"', "names two rules alike"),),
    ),
    Case(
        "an unknown kind of policy",
        POLICY,
        "p: {kind: unifrom}",
        (
            (
                20,
                "policies.p.kind",
                '"unifrom"',
                'is no declared kind of policy; did you mean "uniform"?',
            ),
        ),
    ),
    Case(
        "a policy without a kind",
        POLICY,
        "p: {floor: 0.1}",
        ((20, "policies.p.kind", "", "is required"),),
    ),
    Case(
        "a floor above one",
        POLICY,
        "p: {kind: uniform, floor: 1.5}",
        ((20, "policies.p.floor", "1.5", "input should be less than or equal to 1"),),
    ),
    Case(
        "a sticky policy without a period",
        POLICY,
        "p: {kind: uniform, draw: sticky}",
        ((20, "policies.p.period", "", "is required by `draw: sticky`"),),
    ),
    Case(
        "a period without stickiness",
        POLICY,
        "p: {kind: uniform, period: 7d}",
        ((20, "policies.p.period", "", "is only for `draw: sticky`"),),
    ),
    Case(
        "a salt with a colon in a policy",
        POLICY,
        "p: {kind: uniform, salt: 'a:b'}",
        ((20, "policies.p.salt", '"a:b"', "must be 1 to 64 letters, digits, _ or -"),),
    ),
    Case(
        "an unknown parameter",
        POLICY,
        "p: {kind: uniform, alpha: 1}",
        ((20, "policies.p.alpha", "1", "is unknown."),),
    ),
    Case(
        "a parameter of another type",
        POLICY,
        "p: {kind: lin_ucb, alpha: x}",
        ((20, "policies.p.alpha", '"x"', "is refused: Expected `float`, got `str`"),),
    ),
    Case(
        "a parameter out of bounds",
        POLICY,
        "p: {kind: lin_ucb, l2: -1.0}",
        ((20, "policies.p.l2", "-1.0", "is refused: Expected `float` >= 1e-09"),),
    ),
    Case(
        "a parameter that is infinite",
        POLICY,
        "p: {kind: lin_ucb, alpha: .inf}",
        ((20, "policies.p.alpha", '"inf"', "must be finite"),),
    ),
    Case(
        "a feature name that is a number",
        POLICY,
        "p: {kind: lin_ucb, features: [3]}",
        ((20, "policies.p.features", "[3]", "is refused: Expected `str`, got `int` - at `$[0]`"),),
    ),
    Case(
        "a feature that is undeclared",
        POLICY,
        "p: {kind: lin_ucb, features: [weeks, weks]}",
        (
            (
                20,
                "policies.p.features[1]",
                '"weks"',
                'is no declared attribute of surface "home"; did you mean "weeks"?',
            ),
        ),
    ),
    Case(
        "weights that are all zero",
        POLICY,
        "p: {kind: weighted, weights: {A: 0, B: 0}}",
        (
            (
                20,
                "policies.p",
                '{"weights":{"A":0,"B":0}}',
                "is refused: weights are all zero. Give at least one action a positive ",
            ),
        ),
    ),
    Case(
        "a weight that is negative",
        POLICY,
        "p: {kind: weighted, weights: {A: 1, B: -1}}",
        (
            (
                20,
                "policies.p.weights",
                '{"A":1,"B":-1}',
                "is refused: Expected `float` >= 0.0 - at `$[...]`",
            ),
        ),
    ),
    Case(
        "a weight of an unknown action",
        POLICY,
        "p: {kind: weighted, weights: {A: 1, C: 1}}",
        ((20, "policies.p.weights.C", '"C"', 'is no declared action of slot "home.layout"'),),
    ),
    Case(
        "a fixed action that is unknown",
        POLICY,
        "p: {kind: fixed, action: C}",
        ((20, "policies.p.action", '"C"', 'is no declared action of slot "home.layout"'),),
    ),
    Case(
        "a segment over an undeclared attribute",
        POLICY,
        "p: {kind: segment, otherwise: {A: 1}, "
        "segments: [{id: s, when: 'age > 1', weights: {A: 1}}]}",
        (
            (
                20,
                "policies.p.segments[0].when",
                '"age > 1"',
                '"age" at character 0 is not a declared attribute:',
            ),
        ),
    ),
    Case(
        "a segment with an unknown action",
        POLICY,
        "p: {kind: segment, otherwise: {A: 1}, "
        "segments: [{id: s, when: 'weeks > 1', weights: {C: 1}}]}",
        (
            (
                20,
                "policies.p.segments[0].weights.C",
                '"C"',
                'is no declared action of slot "home.layout"',
            ),
        ),
    ),
    Case(
        "a holdout of everybody",
        "share: 0.1",
        "share: 1.0",
        ((22, "holdouts.h.share", "1.0", "hold out a share in [0, 1), as in 0.05"),),
    ),
    Case(
        "a holdout of more than everybody",
        "share: 0.1",
        "share: 1.1",
        ((22, "holdouts.h.share", "1.1", "input should be less than or equal to 1"),),
    ),
    Case(
        "a holdout of an unknown surface",
        "share: 0.1",
        "share: 0.1, surfaces: [homes]",
        (
            (
                22,
                "holdouts.h.surfaces[0]",
                '"homes"',
                'is no declared surface; did you mean "home"?',
            ),
        ),
    ),
    Case(
        "a salt with a colon in a holdout",
        "share: 0.1",
        "share: 0.1, salt: 'a:b'",
        ((22, "holdouts.h.salt", '"a:b"', "must be 1 to 64 letters, digits, _ or -"),),
    ),
    Case(
        "two holdouts under one salt",
        "  h: {share: 0.1}",
        "  g: {share: 0.1, salt: s}\n  h: {share: 0.1, salt: s}",
        ((23, "holdouts.h.salt", '"s"', "serves holdouts.g.salt already: choose another"),),
    ),
    Case(
        "a range out of order",
        "[0.0, 0.5]",
        "[0.5, 0.0]",
        ((26, "layers.l.e.range", "[0.5,0.0]", "write [low, high] with 0 ≤ low < high ≤ 1"),),
    ),
    Case(
        "a range beyond one",
        "[0.0, 0.5]",
        "[0.5, 1.5]",
        ((26, "layers.l.e.range[1]", "1.5", "input should be less than or equal to 1"),),
    ),
    Case(
        "a range of one number",
        "[0.0, 0.5]",
        "[0.5]",
        (
            (
                26,
                "layers.l.e.range",
                "[0.5]",
                "list should have at least 2 items after validation, not 1",
            ),
        ),
    ),
    Case(
        "an experiment without a range",
        "      range: [0.0, 0.5]\n",
        "",
        ((25, "layers.l.e.range", "", "is required"),),
    ),
    Case(
        "overlapping ranges",
        "layers:\n  l:\n",
        "layers:\n  l:\n    f: {range: [0.4, 1.0], variants: {a: {slots: {home.hero: X}}}}\n",
        (
            (
                25,
                "layers.l.f.range",
                "[0.4,1.0]",
                "overlaps [0.0, 0.5] of 'e': choose a free part of the layer",
            ),
        ),
    ),
    Case(
        "a slot in two layers",
        "layers:\n",
        "layers:\n  m:\n    f: {range: [0.4, 1.0], variants: {a: {slots: {home.layout: A}}}}\n",
        (
            (
                25,
                "layers.m.f.variants",
                '"home.layout"',
                "is decided by 'e' of layer 'l' too: put both experiments into one laye",
            ),
        ),
    ),
    Case(
        "an experiment id in two layers",
        "layers:\n",
        "layers:\n"
        "  m: {e: {range: [0.0, 1.0], state: draft, variants: {a: {slots: {home.hero: X}}}}}\n",
        ((23, "layers", '"e"', "is declared 2 times: give each an id of its own"),),
    ),
    Case(
        "a ramp above one",
        "[0.0, 0.5]\n",
        "[0.0, 0.5]\n      ramp: 2\n",
        ((27, "layers.l.e.ramp", "2", "input should be less than or equal to 1"),),
    ),
    Case(
        "an unknown state",
        "[0.0, 0.5]\n",
        "[0.0, 0.5]\n      state: started\n",
        (
            (
                27,
                "layers.l.e.state",
                '"started"',
                "must be one of 'draft', 'running', 'paused' or 'ended'",
            ),
        ),
    ),
    Case(
        "an unknown baseline",
        "[0.0, 0.5]\n",
        "[0.0, 0.5]\n      baseline: cntrol\n",
        (
            (
                27,
                "layers.l.e.baseline",
                '"cntrol"',
                'is no declared variant; did you mean "control"?',
            ),
        ),
    ),
    Case(
        "a salt with a colon in an experiment",
        "[0.0, 0.5]\n",
        "[0.0, 0.5]\n      salt: 'a:b'\n",
        ((27, "layers.l.e.salt", '"a:b"', "must be 1 to 64 letters, digits, _ or -"),),
    ),
    Case(
        "a weight of zero",
        "control: {",
        "control: {weight: 0, ",
        (
            (
                28,
                "layers.l.e.variants.control.weight",
                "0.0",
                "give it a weight above 0, or remove it",
            ),
        ),
    ),
    Case(
        "an experiment over a missing slot",
        "control: {slots: {home.layout: A}}",
        "control: {slots: {home.footer: A}}",
        (
            (
                28,
                "layers.l.e.variants.control.slots.home.footer",
                '"home.footer"',
                'is no declared slot; did you mean "home.hero"?',
            ),
        ),
    ),
    Case(
        "an experiment over a missing action",
        "control: {slots: {home.layout: A}}",
        "control: {slots: {home.layout: C}}",
        (
            (
                28,
                "layers.l.e.variants.control.slots.home.layout",
                '"C"',
                'is no declared action of slot "home.layout"',
            ),
        ),
    ),
    Case(
        "an experiment with an unknown policy",
        "{policy: p}}}",
        "{policy: q}}}",
        (
            (
                29,
                "layers.l.e.variants.other.slots.home.layout.policy",
                '"q"',
                "is no declared policy",
            ),
        ),
    ),
    Case(
        "a variant that pins and draws",
        "{policy: p}}}",
        "{policy: p, action: A}}}",
        (
            (
                29,
                "layers.l.e.variants.other.slots.home.layout",
                "",
                "must name either an action or {policy: …}",
            ),
        ),
    ),
    Case(
        "an experiment without variants",
        VARIANTS,
        "        {}\n",
        ((27, "layers.l.e.variants", "{}", "is empty"),),
    ),
    Case(
        "an experiment that decides nothing",
        VARIANTS,
        "        control: {}\n",
        (
            (
                27,
                "layers.l.e.variants",
                '["control"]',
                "let a variant decide a slot, or drop the experiment",
            ),
        ),
    ),
    Case(
        "an unknown time zone",
        "policies:\n",
        "time_zone: Europe/Berln\npolicies:\n",
        ((19, "time_zone", '"Europe/Berln"', "is no IANA time zone"),),
    ),
    Case(
        "a key twice in one file",
        "policies:\n",
        "policies: {}\npolicies:\n",
        (
            (
                20,
                "workspace",
                '"w.yaml"',
                "is not YAML 1.2: found duplicate key \"policies\" with value \"{'p': {'ki",
            ),
        ),
    ),
    Case(
        "a file that is a list",
        None,
        "- surfaces\n",
        (
            (
                1,
                "workspace",
                '"w.yaml"',
                "must be a mapping with some of surfaces, policies, holdouts, layers, t",
            ),
        ),
    ),
    Case(
        "a file that is no YAML",
        None,
        "surfaces: [\n",
        (
            (
                2,
                "workspace",
                '"w.yaml"',
                "is not YAML 1.2: expected the node content, but found '<stream end>'",
            ),
        ),
    ),
    Case(
        "a file of two documents",
        None,
        "time_zone: UTC\n---\ntime_zone: UTC\n",
        ((2, "workspace", '"w.yaml"', "is not YAML 1.2: but found another document"),),
    ),
    Case(
        "a file with nothing in it",
        None,
        "# nothing yet\n",
        ((None, "surfaces", "", "is required"),),
    ),
    Case(
        "a section that is a number",
        "holdouts:\n  h: {share: 0.1}\n",
        "holdouts: 5\n",
        ((21, "holdouts", "5", "input should be a valid dictionary"),),
    ),
]


def _faults(folder: Path) -> list[tuple[str | None, int | None, str, str, str]]:
    with pytest.raises(ConfigurationError) as caught:
        load_workspace(folder)
    return [
        (str(f.file) if f.file else None, f.line, f.field, f.value, f.message)
        for f in caught.value.faults
    ]


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


# What loads --------------------------------------------------------------------------------------


def test_the_sample_workspace_loads() -> None:
    workspace = load_workspace(SAMPLE)
    assert set(workspace.surfaces) == {"home", "nudge"}
    assert workspace.time_zone == "Europe/Berlin"
    assert set(workspace.learners) == {
        "home_layout:home.layout",
        "home_layout:home.layout@layout_bandit.bandit",
        "nudge_channel:nudge.channel",
    }


def test_every_key_of_the_schema_appears_in_the_sample() -> None:
    """Used, or named in a comment with its default; a key's own short form counts as its use."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(SAMPLE.glob("*.yaml")))
    keys = {key for part in _parts(WorkspacePart) for key in part.model_fields}
    # A pin is written `slot: action`, which is the short form of `action`.
    missing = {k for k in keys - {"action"} if not re.search(rf"(?m)(^|[\s{{#]){k}:", text)}
    assert missing == set()


def _parts(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from _parts(field.annotation)
    for argument in get_args(kind):
        yield from _parts(argument)


def test_no_parameter_of_a_policy_kind_is_hidden_by_a_key_of_every_policy() -> None:
    """`segments` is both, by design: its rules are the engine's, its weights the policy's."""
    common = set(PolicyPart.model_fields) - {"segments"}
    for kind in POLICY_KINDS:
        assert common.isdisjoint(p.name for p in describe_parameters(kind)), kind


def test_no_is_a_string() -> None:
    """YAML 1.2: Norway is no falsehood, and an octal-looking number no octal."""
    workspace = workspace_of(SOUND.replace("{value: 2}}", "{value: {NO: [NO, no, off, yes]}}}"))
    assert workspace.surfaces["home"].slots["hero"].values["Y"] == {
        "NO": ["NO", "no", "off", "yes"]
    }


def test_a_merged_key_is_read_like_a_written_one() -> None:
    merged = SOUND.replace("{X: {value: 1}, Y: {value: 2}}", "{X: &x {value: 1}, Y: {<<: *x}}")
    assert workspace_of(merged).surfaces["home"].slots["hero"].values == {"X": 1, "Y": 1}


def test_an_anchored_truth_value_stays_one() -> None:
    text = SOUND.replace("    triggers: [start]", "    triggers: [s]\n    require_trigger: &t true")
    assert workspace_of(text).surfaces["home"].require_trigger is True


def test_durations_are_exact() -> None:
    spec = load_workspace(SAMPLE).surfaces["home"].metrics["watch"]
    assert (spec.window_us, spec.maturity_us) == (24 * 3_600_000_000, 25 * 3_600_000_000)


def test_a_policy_in_a_variant_has_a_model_of_its_own_unless_it_is_shared() -> None:
    lone = workspace_of(SOUND.replace(POLICY, "p: {kind: thompson_gaussian}"))
    shared = workspace_of(SOUND.replace(POLICY, "p: {kind: thompson_gaussian, shared: true}"))
    assert set(lone.learners) == {"p:home.layout", "p:home.layout@e.other"}
    assert set(shared.learners) == {"p:home.layout"}


# What is refused ---------------------------------------------------------------------------------


def test_the_text_that_the_broken_ones_are_made_from_is_sound() -> None:
    assert workspace_of(SOUND).surfaces.keys() == {"home"}


@pytest.mark.parametrize("case", BROKEN, ids=[case.name for case in BROKEN])
def test_a_broken_workspace_is_told_its_faults_and_no_others(case: Case, tmp_path: Path) -> None:
    assert case.old is None or SOUND.count(case.old) == 1
    text = case.new if case.old is None else SOUND.replace(case.old, case.new)
    found = _faults(_write(tmp_path, w=text))
    assert [(line, field) for _, line, field, _, _ in found] == [told[:2] for told in case.told]
    for (file, line, _, value, message), told in zip(found, case.told, strict=True):
        assert file == ("w.yaml" if line else None)
        assert value.startswith(told[2])
        assert bool(value) == bool(told[2])
        assert message.startswith(told[3])


def test_a_message_names_file_line_field_value_and_repair(tmp_path: Path) -> None:
    text = SOUND.replace("policy: p\n", "policy: pp\n")
    with pytest.raises(ConfigurationError) as caught:
        load_workspace(_write(tmp_path, w=text))
    assert str(caught.value) == (
        'w.yaml:12: `surfaces.home.slots.layout.policy` is "pp": '
        'is no declared policy; did you mean "p"? Known: "p"'
    )


def test_every_fault_is_told_in_one_run(tmp_path: Path) -> None:
    """No fault hides another: not in the same part, nor in what refers to it."""
    text = SOUND
    for old, new in (
        ("    owner:", "    ownr:"),
        ("weeks: integer", "weeks: integer, age: int"),
        ("window: 1h", "window: 60"),
        ("{direction: up}", "{direction: sideways}"),
        ("policy: p\n", "policy: pp\n"),
        ("weeks >= 1", "wks >= 1"),
        ("default: X", "default: Z"),
        (POLICY, "p: {kind: unifrom, floor: 2}"),
        ("share: 0.1", "share: 7, surfaces: [homes]"),
        ("{home.layout: A}", "{home.footer: A}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    told = [(line, field) for _, line, field, _, _ in _faults(_write(tmp_path, w=text))]
    slots = "surfaces.home.slots"
    assert told == [
        (2, "surfaces.home.owner"),
        (3, "surfaces.home.ownr"),
        (5, "surfaces.home.attributes.age"),
        (6, "surfaces.home.metrics.watch.window"),
        (8, "surfaces.home.guardrails.watch.direction"),
        (12, f"{slots}.layout.policy"),
        (15, f"{slots}.layout.rules[0].when"),
        (17, f"{slots}.hero.default"),
        (20, "policies.p.floor"),
        (20, "policies.p.kind"),
        (22, "holdouts.h.share"),
        (22, "holdouts.h.surfaces[0]"),
        (28, "layers.l.e.variants.control.slots.home.footer"),
    ]


def test_a_fault_in_a_list_does_not_shift_those_after_it(tmp_path: Path) -> None:
    rules = (
        RULE.replace("eligibility", "elig")
        + RULE.replace("id: r,", "").replace("weeks", "x")
        + RULE.replace("[B]", "['a b', B, Z]").replace("weeks >= 1", "age > 2")
    )
    told = [
        (line, field, value)
        for _, line, field, value, _ in _faults(_write(tmp_path, w=SOUND.replace(RULE, rules)))
    ]
    at = "surfaces.home.slots.layout.rules"
    assert told == [
        (15, f"{at}[0].kind", '"elig"'),
        (16, f"{at}[1].id", ""),
        (17, f"{at}[2].actions[0]", '"a b"'),
        (17, f"{at}[2].actions[2]", '"Z"'),
        (17, f"{at}[2].when", '"age > 2"'),
    ]


def test_a_part_in_two_files_is_told_with_both_places(tmp_path: Path) -> None:
    _write(
        tmp_path,
        a=SOUND,
        b="policies:\n  p: {kind: uniform}\n  q: {kind: uniform}\n",
        c="time_zone: UTC\nlayers:\n  l:\n    e: {range: [0, 1]}\n",
        d="time_zone: UTC\n",
    )
    assert _faults(tmp_path) == [
        ("b.yaml", 2, "policies.p", "", "is declared twice, first at a.yaml:20; keep one of them"),
        ("c.yaml", 4, "layers.l.e", "", "is declared twice, first at a.yaml:25; keep one of them"),
        ("d.yaml", 1, "time_zone", "", "is declared twice, first at c.yaml:1; keep one of them"),
    ]


def test_a_section_left_empty_in_one_file_does_not_hide_that_of_another(tmp_path: Path) -> None:
    found = _faults(_write(tmp_path, a="policies:\n", b=SOUND))
    assert [(file, line, field) for file, line, field, _, _ in found][:1] == [
        ("a.yaml", 1, "policies")
    ]
    assert ("b.yaml", 19, "policies") in [(file, line, field) for file, line, field, _, _ in found]


def test_a_fault_names_the_file_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    _write(tmp_path, surfaces=SOUND.replace(f"policies:\n  {POLICY}\n", ""))
    (tmp_path / "policies" / "all.yml").write_text("policies:\n\n  p: {kind: x}\n")
    assert [(file, line, field) for file, line, field, _, _ in _faults(tmp_path)] == [
        ("policies/all.yml", 3, "policies.p.kind")
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent", "is not a folder"),
        (lambda folder: folder, "holds no *.yaml file"),
    ],
)
def test_a_folder_without_files_is_refused(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    ((_, _, field, _, told),) = _faults(make(tmp_path))
    assert field == "workspace"
    assert told.startswith(message)


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    found = _faults(_write(tmp_path, a=SOUND, big="#" * 4_000_001))
    assert [f[:3] for f in found] == [("big.yaml", 1, "workspace")]


def test_a_file_that_is_no_text_is_told_beside_other_faults(tmp_path: Path) -> None:
    _write(tmp_path, a=SOUND.replace("default: X", "default: Z"))
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert [f[:3] for f in _faults(tmp_path)] == [
        ("a.yaml", 17, "surfaces.home.slots.hero.default"),
        ("b.yaml", 1, "workspace"),
    ]


def test_nesting_beyond_reason_is_told_not_raised(tmp_path: Path) -> None:
    deep = SOUND.replace("Y: {value: 2}", f"Y: {{value: {'[' * 400}{']' * 400}}}")
    ((_, _, field, _, message),) = _faults(_write(tmp_path, w=deep))
    assert field == "workspace"
    assert "recursion" in message


# Revisions ---------------------------------------------------------------------------------------


def _content(workspace: Workspace) -> Any:
    return msgspec.json.decode(canonical_content(workspace))


def _shuffled(node: Any, rng: random.Random) -> Any:
    if isinstance(node, dict):
        keys = list(node)
        rng.shuffle(keys)
        return {key: _shuffled(node[key], rng) for key in keys}
    return [_shuffled(item, rng) for item in node] if isinstance(node, list) else node


def _as_json(content: Any) -> str:
    """JSON, which YAML 1.2 contains."""
    return msgspec.json.encode(content).decode()


def test_a_revision_is_the_digest_of_the_content_not_of_the_files() -> None:
    """Comments, the order of keys and the split over files do not change it."""
    sample = load_workspace(SAMPLE)
    content = _content(sample)
    rng = random.Random(1)
    for _ in range(3):
        shuffled = _shuffled(content, rng)
        assert workspace_of(_as_json(shuffled)).revision == sample.revision
        files = [_as_json({section: part}) for section, part in shuffled.items()]
        surfaces = [_as_json({"surfaces": {k: v}}) for k, v in shuffled["surfaces"].items()]
        others = [file for file in files if not file.startswith('{"surfaces"')]
        assert workspace_of(*others, *surfaces).revision == sample.revision


def test_a_revision_changes_with_every_value() -> None:
    """Each leaf of the sample, changed alone, gives another digest."""
    content = _content(load_workspace(SAMPLE))
    digests = {load_workspace(SAMPLE).revision}
    leaves = list(_leaves(content, ()))
    changed = 0
    for path in leaves:
        edited = _edited(content, path)
        try:
            digests.add(workspace_from_content(msgspec.json.encode(edited)).revision)
        except ConfigurationError:
            continue
        changed += 1
    assert changed > 60
    assert len(digests) == changed + 1


def _leaves(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*path, key))
    else:
        yield path


def _edited(content: Any, path: tuple[Any, ...]) -> Any:
    copy = msgspec.json.decode(msgspec.json.encode(content))
    node = copy
    for key in path[:-1]:
        node = node[key]
    old = node[path[-1]]
    if isinstance(old, bool):
        node[path[-1]] = not old
    elif isinstance(old, int | float):
        node[path[-1]] = old * 0.5 if old else 0.5
    elif isinstance(old, str):
        node[path[-1]] = f"2{old}" if re.fullmatch(r"\d+\w", old) else f"{old} "
    else:
        node[path[-1]] = "something"
    return copy


def _read_back(workspace: Workspace) -> Workspace:
    return workspace_from_content(canonical_content(workspace))


def test_a_stored_revision_reads_back_under_its_digest() -> None:
    sample = load_workspace(SAMPLE)
    assert _read_back(sample).revision == sample.revision
    assert canonical_content(_read_back(sample)) == canonical_content(sample)


def test_a_stored_revision_decides_as_the_files_did() -> None:
    """Invariant 2: the digest is all that a record keeps of the configuration."""
    sample = load_workspace(SAMPLE)
    before, after = serving_of(sample), serving_of(_read_back(sample))
    for unit in range(200):
        context = {"weeks": unit % 4, "device": "phone", "churn_risk": (unit % 10) / 10}
        for surface in ("home", "nudge"):
            seen = {n: context[n] for n in context if n in sample.surfaces[surface].attributes}
            assert decided(before, surface, unit, context=seen) == decided(
                after, surface, unit, context=seen
            )


def test_the_order_of_keys_moves_nobody() -> None:
    sample = load_workspace(SAMPLE)
    content = _content(sample)
    other = workspace_of(_as_json(_shuffled(content, random.Random(2))))
    for unit in range(500):
        before = assign(sample.design, f"u:{unit}", "home")
        assert assign(other.design, f"u:{unit}", "home") == before


def test_the_first_variant_is_the_baseline_even_when_read_back() -> None:
    """Which is the one thing that the order in a file says; so it makes another revision."""
    written = workspace_of(SOUND)
    turned = workspace_of(SOUND.replace(VARIANTS, "".join(reversed(VARIANTS.splitlines(True)))))
    for workspace, baseline in ((written, "control"), (turned, "other")):
        assert workspace.design.experiments[0].baseline_variant == baseline
        assert _read_back(workspace).design.experiments[0].baseline_variant == baseline
    assert written.revision != turned.revision


def _spec(text: str) -> str:
    return workspace_of(text).learners["p:home.layout"].spec


LEARNING = SOUND.replace(POLICY, "p: {kind: lin_ucb, alpha: 0.5}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("alpha: 0.5", "alpha: 0.6"),
        ("alpha: 0.5", "features: [weeks]"),
        ("lin_ucb", "lin_ts"),
        ("reward: {watch: 1.0}", "reward: {watch: 2.0}"),
        ("window: 1h", "window: 2h"),
        ("window: 1h", "window: 1h, lateness: 1h"),
        ("window: 1h", "window: 1h, aggregate: max"),
        ("window: 1h", "window: 1h, default: 1"),
        ("alpha: 0.5", "alpha: 0.5, draw: sticky, period: 7d"),
    ],
)
def test_what_a_snapshot_depends_on_begins_a_new_lineage(old: str, new: str) -> None:
    assert LEARNING.count(old) == 1
    assert _spec(LEARNING.replace(old, new)) != _spec(LEARNING)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("growth@example.com", "home@example.com"),
        ("alpha: 0.5", "alpha: 0.5, floor: 0.1"),
        ("share: 0.1", "share: 0.2"),
        ("weeks >= 1", "weeks >= 2"),
        ("metrics: {watch: {window: 1h}}", "metrics: {watch: {window: 1h}, click: {window: 1d}}"),
    ],
)
def test_what_a_snapshot_does_not_depend_on_continues_the_lineage(old: str, new: str) -> None:
    assert LEARNING.count(old) == 1
    assert _spec(LEARNING.replace(old, new)) == _spec(LEARNING)
