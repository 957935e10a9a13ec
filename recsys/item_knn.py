"""Item-kNN: the items whose users are most alike, each user weighted by BM25.

The entry of user u and item i is weighted by

    idf_u · x_ui (κ + 1) / (x_ui + κ (1 − β + β n_i / n̄))

with κ = 1.2, β = .75 and idf_u = log(1 + items / n_u), so that users who choose everything say
little; the similarity is the cosine of two items' columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_K1, _B = 1.2, 0.75
_BLOCK = 512  # items whose similarities are held at a time


def nearest_items(
    choices: Any, count: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """(n, count) items by descending similarity, and (n, count) those; 0 where there are fewer.

    Parameters
    ----------
    choices
        Sparse (users, n), positive.
    """
    from scipy import sparse  # noqa: PLC0415  training only

    n = choices.shape[1]
    weighted = _bm25(choices)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=0)).ravel())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0.0)
    unit = (weighted @ sparse.diags_array(scale)).tocsc()
    rows = unit.T.tocsr()
    items = np.zeros((n, count), np.int32)
    similarities = np.zeros((n, count), np.float32)
    for start in range(0, n, _BLOCK):
        block = (rows[start : start + _BLOCK] @ unit).tocsr()
        for offset in range(block.shape[0]):
            item = start + offset
            there = slice(block.indptr[offset], block.indptr[offset + 1])
            others, values = block.indices[there], block.data[there]
            other = others != item
            others, values = others[other], values[other]
            if len(others) > count:
                kept = np.argpartition(-values, count)[:count]
                others, values = others[kept], values[kept]
            order = np.lexsort((others, -values))
            items[item, : len(order)] = others[order]
            similarities[item, : len(order)] = values[order]
    return items, similarities


def _bm25(choices: Any) -> Any:
    from scipy import sparse  # noqa: PLC0415

    x = choices.tocoo()
    n_users, n_items = x.shape
    per_user = np.bincount(x.row, minlength=n_users)
    per_item = np.bincount(x.col, minlength=n_items)
    # Plus one, since a user who chose every item must still weigh something.
    idf = np.log1p(n_items / np.maximum(1, per_user))
    length = 1.0 - _B + _B * per_item / max(1.0, per_item.mean())
    data = idf[x.row] * x.data * (_K1 + 1.0) / (x.data + _K1 * length[x.col])
    return sparse.csr_array((data, (x.row, x.col)), shape=x.shape)
