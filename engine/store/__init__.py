"""The store: the log's tables, the one writer's lock, and reading beside it; the keys, and models.

The only place that imports SQLAlchemy and Alembic.
"""

from engine.store.database import Store
from engine.store.keys import KeyStore
from engine.store.models import ModelRow, ModelStore
from engine.store.read import ClosedChoice, PromotionRow, SnapshotRow, StoredDecision

__all__ = [
    "ClosedChoice",
    "KeyStore",
    "ModelRow",
    "ModelStore",
    "PromotionRow",
    "SnapshotRow",
    "Store",
    "StoredDecision",
]
