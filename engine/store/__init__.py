"""The store: the log's tables, the one writer's lock, and reading beside it; and the keys.

The only place that imports SQLAlchemy and Alembic.
"""

from engine.store.database import Store
from engine.store.keys import KeyStore
from engine.store.read import ClosedChoice, PromotionRow, SnapshotRow, StoredDecision

__all__ = ["ClosedChoice", "KeyStore", "PromotionRow", "SnapshotRow", "Store", "StoredDecision"]
