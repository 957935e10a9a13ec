"""A camera shop: the items, slates and rules that the tests of slates are about."""

from __future__ import annotations

from typing import Any

SHOP = """\
items:
  attributes:
    title: string
    type: string
    franchise: string
    price: number
    margin: number
    stock: number
    regions: list
    compatible_with: list
    published: timestamp
  interactions: {purchase: purchase, returned: return, viewed: view}
surfaces:
  product:
    owner: shop@example.com
    triggers: [product_view]
    attributes: {viewing: string, region: string, cart: list, budget: number}
    metrics:
      purchase: {window: 7d}
      returned: {window: 30d}
      viewed: {window: 1d}
      margin: {window: 7d, lateness: 30d}
    reward: {margin: 1.0}
    slots:
      row:
        default: accessories
        actions:
          accessories: {value: {title: Fits your camera}, slates: [accessories]}
slates:
  accessories:
    owner: shop@example.com
    kind: accessories
    k: 3
    from_context: {seeds: viewing, exclude: cart}
    keep_out:
      out_of_stock: true
      stale: {stock: 1h}
      other_regions: region
      recent: {purchase: 30d, return: 90d}
      unless: {type: [article]}
    rules:
      - id: within_budget
        kind: suppress
        when: "has(budget) && has(item.price) && item.price > budget"
        reason: dearer than the budget
      - id: push_bundles
        kind: boost
        amount: 0.3
        when: 'item.type == "bundle"'
        reason: bundles earn more
    limits: {type: 2}
"""
"""One surface, whose one slot shows accessories of the product that is viewed."""

ITEMS: dict[str, dict[str, Any]] = {
    "camera-c": {"type": "camera", "compatible_with": ["mount-m"], "price": 900, "margin": 90},
    "lens-m": {"type": "lens", "compatible_with": ["mount-m"], "price": 300, "margin": 60},
    "lens-n": {"type": "lens", "compatible_with": ["mount-n"], "price": 250, "margin": 50},
    "card": {"type": "card", "compatible_with": ["mount-m", "mount-n"], "price": 30, "margin": 6},
    "battery": {"type": "battery", "compatible_with": ["mount-m"], "price": 40, "stock": 0},
    "warranty": {"type": "service", "compatible_with": ["mount-m"], "regions": ["US"]},
    "strap": {"type": "strap", "compatible_with": ["mount-m"], "price": 20, "margin": 8},
    "bag": {"type": "bag", "compatible_with": ["mount-m"], "price": 60, "margin": 20},
    "bundle": {"type": "bundle", "compatible_with": ["mount-m"], "price": 350, "margin": 120},
}
"""The catalogue of scenario S2: a camera with mount M, and what may go with it."""

STOCKED: dict[str, dict[str, Any]] = {
    id_: {"stock": 5, "regions": ["DE", "US"], **item} for id_, item in ITEMS.items()
}
