"""The one error of this package, and the one way in which rows of a frame are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class AttributionError(ValueError):
    """Data or arguments from which no honest number can be made.

    ``count`` and ``row`` are set where rows are at fault: how many, and the position of the
    first, counted from 0.
    """

    def __init__(self, message: str, *, count: int | None = None, row: int | None = None) -> None:
        super().__init__(message)
        self.count = count
        self.row = row


def refuse_rows(
    bad: npt.NDArray[np.bool_], field: str, fault: str, repair: str, values: object = None
) -> None:
    """Raise if any row is ``bad``, naming the field, how many rows, the first, and the repair.

    Parameters
    ----------
    bad
        (n,), true where a row is at fault.
    values
        (n,) array from which the first offending value is shown, if given.
    """
    if not bad.any():
        return
    count, row = int(bad.sum()), int(bad.argmax())
    shown = "" if values is None else f" (it is {values[row]!s})"  # type: ignore[index]  # an array
    raise AttributionError(
        f"`{field}` {fault} in {count:,} of {len(bad):,} rows, first in row {row}{shown}. {repair}",
        count=count,
        row=row,
    )
