"""The store: the log's tables, the one writer's lock, and reading beside it.

The only place that imports SQLAlchemy and Alembic.
"""

from engine.store.database import Store
from engine.store.read import ClosedChoice, SnapshotRow, StoredDecision

__all__ = ["ClosedChoice", "SnapshotRow", "Store", "StoredDecision"]
