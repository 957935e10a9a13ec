"""A policy's saved state: deterministic bytes, raw arrays, nothing that runs when read.

A snapshot is a MessagePack map

    {"format": 1, "kind": str, "parameters": {…}, "state": {…},
     "arrays": {name: {"dtype": "<f8" | "<i8", "shape": [int], "data": bytes}}}

with its keys sorted, followed by the 32 bytes of its SHA-256. The checksum finds damage before
anything is interpreted; it is no signature: who may write a snapshot is the store's concern.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from policies.errors import PolicyError

FORMAT = 1
_CHECKSUM_BYTES = 32

T = TypeVar("T")
Array = npt.NDArray[np.float64] | npt.NDArray[np.int64]


class _PackedArray(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Literal["<f8", "<i8"]
    shape: list[int]
    data: bytes


class _Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    kind: str
    parameters: dict[str, Any]
    state: dict[str, Any]
    arrays: dict[str, _PackedArray]


class Snapshot(msgspec.Struct, frozen=True):
    """The content of a snapshot, read: see the module docstring."""

    kind: str
    parameters: dict[str, Any]
    state: dict[str, Any]
    arrays: dict[str, Array]

    def state_as(self, model: type[T]) -> T:
        """The state as ``model``.

        Raises
        ------
        PolicyError
            If it is not of that form.
        """
        try:
            return msgspec.convert(self.state, model)
        except msgspec.ValidationError as error:
            raise PolicyError(f"snapshot.state of kind {self.kind!r}: {error}.") from error

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        """One array.

        Raises
        ------
        PolicyError
            If it is absent, or of another dtype or shape.
        """
        found = self.arrays.get(name)
        if found is None or found.dtype != np.dtype(dtype) or found.shape != shape:
            seen = "absent" if found is None else f"{found.dtype} {found.shape}"
            raise PolicyError(f"snapshot.arrays.{name} is {seen}, not {dtype} {shape}.")
        return found


def pack(
    kind: str,
    parameters: Mapping[str, Any],
    state: Mapping[str, Any],
    arrays: Mapping[str, Array],
) -> bytes:
    """Snapshot bytes; equal contents give equal bytes."""
    packed = _Packed(
        format=FORMAT,
        kind=kind,
        parameters=dict(parameters),
        state=dict(state),
        arrays={name: _pack_array(array) for name, array in arrays.items()},
    )
    body = msgspec.msgpack.encode(packed, order="deterministic")
    return body + hashlib.sha256(body).digest()


def _pack_array(array: Array) -> _PackedArray:
    dtype: Literal["<f8", "<i8"] = "<f8" if array.dtype.kind == "f" else "<i8"
    return _PackedArray(dtype, list(array.shape), array.astype(dtype, order="C").tobytes())


def unpack(data: bytes) -> Snapshot:
    """Read snapshot bytes.

    Raises
    ------
    PolicyError
        If they were truncated or altered, or are no snapshot of this format.
    """
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        raise PolicyError(
            f"snapshot of {len(data)} bytes fails its checksum: truncated, altered, or no "
            "snapshot. Load its parent, or the bytes as they were stored."
        )
    try:
        packed = msgspec.msgpack.decode(body, type=_Packed)
    except msgspec.DecodeError as error:
        raise PolicyError(f"snapshot is not of format {FORMAT}: {error}.") from error
    if packed.format != FORMAT:
        raise PolicyError(f"snapshot.format is {packed.format}; this version reads {FORMAT}.")
    arrays = {name: _unpack_array(name, array) for name, array in packed.arrays.items()}
    return Snapshot(packed.kind, packed.parameters, packed.state, arrays)


def _unpack_array(name: str, packed: _PackedArray) -> Array:
    if min(packed.shape, default=0) < 0 or math.prod(packed.shape) * 8 != len(packed.data):
        raise PolicyError(
            f"snapshot.arrays.{name} has {len(packed.data)} bytes, which do not fill its shape "
            f"{packed.shape}."
        )
    # The copy is aligned, writable and in the machine's own byte order.
    array = np.frombuffer(packed.data, dtype=packed.dtype).reshape(packed.shape)
    native: Array = array.astype(array.dtype.newbyteorder("="), copy=True)
    if not np.isfinite(native).all():
        raise PolicyError(f"snapshot.arrays.{name} holds numbers that are not finite.")
    return native


def snapshot_digest(data: bytes) -> str:
    """SHA-256 of a snapshot's bytes, in hexadecimal: the name a store keeps it by."""
    return hashlib.sha256(data).hexdigest()
