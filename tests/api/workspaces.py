"""The workspaces that the tests of the API serve."""

from __future__ import annotations

from pathlib import Path

SURFACES = """
surfaces:
  home:
    owner: growth@example.com
    triggers: [session_start]
    attributes:
      device: string
      weeks: integer
      churn_risk: {type: number, max_age: 1d}
      joined: timestamp
      genres: list
      consent: boolean
    metrics:
      watch: {window: 24h, lateness: 1h, aggregate: max}
      cancel: {window: 7d, aggregate: max}
    reward: {watch: 1.0, cancel: -5.0}
    slots:
      layout:
        default: flat
        policy: layout
        actions:
          flat: {value: {rows: [carousel]}, features: {depth: 1}}
          B: {value: {rows: [continue, carousel]}, features: {depth: 4}}
          compact: {value: {rows: []}, features: {depth: 2}}
        rules:
          - id: b_needs_history
            kind: eligibility
            actions: [B]
            when: 'weeks >= 1 && device != "tv"'
            reason: too new for layout B
          - id: shallow_on_phones
            kind: suppression
            when: 'device == "phone" && action.depth > 3'
            reason: too deep for a phone
      hero:
        default: plain
        policy: hero
        actions:
          plain: {value: Welcome}
          offer: {value: Stay}
  nudge:
    owner: lifecycle@example.com
    attributes: {consent: {type: boolean, required: true}}
    metrics: {visit: {window: 3d}}
    reward: {visit: 1.0}
    slots:
      channel:
        default: none
        policy: channel
        actions: {none: {value: null}, email: {value: weekly}}
  triggered:
    owner: growth@example.com
    triggers: [open]
    require_trigger: true
    slots: {only: {default: one, actions: {one: {value: 1}}}}
"""

POLICIES = """
policies:
  layout: {kind: thompson_gaussian, floor: 0.1}
  hero: {kind: weighted, weights: {plain: 1, offer: 1}}
  channel: {kind: uniform, draw: sticky, period: 7d}
"""

EXPERIMENTS = """
holdouts: {global: {share: 0.05}}
layers:
  homepage:
    layout_test:
      range: [0.0, 0.5]
      ramp: 0.9
      variants:
        control: {slots: {home.layout: flat}}
        b: {slots: {home.layout: compact}}
"""

QUICK = """
surfaces:
  home:
    owner: growth@example.com
    attributes: {weeks: integer}
    metrics: {watch: {window: 50ms, aggregate: max}}
    reward: {watch: 1.0}
    slots:
      layout:
        default: flat
        policy: layout
        actions: {flat: {value: 1}, B: {value: 2}}
policies:
  layout: {kind: lin_ucb, floor: 0.2}
layers:
  only:
    quick_test:
      range: [0.0, 0.5]
      variants: {control: {slots: {home.layout: flat}}, b: {slots: {home.layout: B}}}
"""
"""A workspace whose decisions mature at once."""


SLATES = """
items:
  attributes: {price: number, stock: number, kind: string, regions: list, published: timestamp}
  interactions: {watch: view}
surfaces:
  shelf:
    owner: shop@example.com
    attributes: {looking_at: string, budget: number}
    slots: {row: {default: shown, actions: {shown: {value: Shelf, slates: [shelf]}}}}
slates:
  shelf:
    owner: shop@example.com
    k: 3
    from_context: {seeds: looking_at}
    keep_out: {out_of_stock: true}
    rules:
      - {id: dear, kind: suppress, when: "has(budget) && item.price > budget", reason: too dear}
    limits: {kind: 2}
    exploration: {temperature: 0.1, epsilon: 0.1}
"""


def write_slates(folder: Path) -> Path:
    """Add a surface with a slate, and items for it, to a workspace; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slates.yaml").write_text(SLATES, encoding="utf-8")
    return folder


def write_workspace(folder: Path) -> Path:
    """Write the workspace that most tests serve, in three files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("surfaces", SURFACES),
        ("policies", POLICIES),
        ("experiments", EXPERIMENTS),
    ):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def write_quick_workspace(folder: Path) -> Path:
    """Write a workspace that learns within a fraction of a second; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quick.yaml").write_text(QUICK, encoding="utf-8")
    return folder
