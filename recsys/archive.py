"""A model's bytes: arrays that can be mapped from a file, JSON, a checksum, nothing that runs.

    "evenhand-recsys", a zero byte · length of the header (8 bytes, little-endian) · header as JSON
    · each array, from a multiple of 64 bytes on · SHA-256 of all that

The checksum finds damage before anything is interpreted; it is no signature: who may write a model
is the store's concern.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from recsys.errors import RecsysError

FORMAT = 1
_MAGIC = b"evenhand-recsys\0"
_ALIGNMENT = 64
_CHECKSUM_BYTES = 32

Array = npt.NDArray[Any]
Buffer = bytes | memoryview


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Literal["<f8", "<f4", "<f2", "<i8", "<i4", "|u1"]
    shape: list[int]
    order: Literal["C", "F"]
    offset: int


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    values: dict[str, Any]
    arrays: dict[str, _Place]


def pack(values: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """The bytes of values that JSON can hold and of arrays; equal contents give equal bytes."""
    offset = 0
    places: dict[str, _Place] = {}
    for name, array in arrays.items():
        order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
        code = array.dtype.newbyteorder("<").str
        places[name] = msgspec.convert(
            {"dtype": code, "shape": list(array.shape), "order": order, "offset": offset}, _Place
        )
        offset = _aligned(offset + array.nbytes)
    header = msgspec.json.encode(_Header(FORMAT, dict(values), places), order="deterministic")
    start = _aligned(len(_MAGIC) + 8 + len(header))
    data = bytearray(start + offset)
    data[: len(_MAGIC)] = _MAGIC
    data[len(_MAGIC) : len(_MAGIC) + 8] = len(header).to_bytes(8, "little")
    data[len(_MAGIC) + 8 : len(_MAGIC) + 8 + len(header)] = header
    for name, array in arrays.items():
        place = places[name]
        there = start + place.offset
        plain = array.astype(place.dtype, copy=False)
        data[there : there + array.nbytes] = plain.tobytes(order=place.order)
    data += hashlib.sha256(data).digest()
    return bytes(data)


def unpack(data: Buffer) -> tuple[dict[str, Any], dict[str, Array]]:
    """The values and arrays; arrays are views of ``data``, so that a mapped file stays on disk.

    Raises
    ------
    RecsysError
        If the bytes were truncated or altered, or are no model of this format.
    """
    whole = memoryview(data)
    body, checksum = whole[:-_CHECKSUM_BYTES], whole[-_CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        raise RecsysError(
            f"model of {len(whole)} bytes fails its checksum: truncated, altered, or no model. "
            "Load the one before, or train anew."
        )
    if bytes(body[: len(_MAGIC)]) != _MAGIC:
        raise RecsysError("model does not begin as one. Give the bytes that `dumps` made.")
    start = len(_MAGIC) + 8
    length = int.from_bytes(body[len(_MAGIC) : start], "little")
    try:
        header = msgspec.json.decode(body[start : start + length], type=_Header)
    except msgspec.DecodeError as error:
        raise RecsysError(f"model is not of format {FORMAT}: {error}.") from error
    if header.format != FORMAT:
        raise RecsysError(f"model.format is {header.format}; this version reads {FORMAT}.")
    rest = body[_aligned(start + length) :]
    return header.values, {name: _array(name, at, rest) for name, at in header.arrays.items()}


def _array(name: str, place: _Place, rest: memoryview) -> Array:
    count = math.prod(place.shape)
    size = count * np.dtype(place.dtype).itemsize
    if min(place.shape, default=0) < 0 or not 0 <= place.offset <= len(rest) - size:
        raise RecsysError(f"model.arrays.{name} lies beyond the model's end.")
    flat = np.frombuffer(rest, place.dtype, count, place.offset)
    return flat.reshape(place.shape, order=place.order)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
