# SPDX-License-Identifier: MIT
"""From whatever holds numbers to rows that the engine reads in place.

Float32, float64, float16, bfloat16, uint8 and bool rows whose columns are neighbours in memory are used where they lie,
read-only and memory-mapped ones too. Anything else is converted once, here; what cannot be is an error that names the
fix.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _bfloat16, _core, _frames, _gpu
from .config import Config

_READ_IN_PLACE = frozenset("fdeB?")
_CONVERTED = frozenset("bhHiIlLqQg")  # other integers to float32; long double to float64
_READABLE = "float32, float64, float16, bfloat16, uint8 or bool"


def rows_of(x: Any, config: Config, name: str = "x") -> _core.Rows:
    """Rows of `x` as a model of `config` reads them: (n, *input_shape) or (n, D).

    Where the model's columns have names, a table's are found by them, and its categories are words.
    """
    if _frames.is_table(x) and any(column.name for column in config.columns or ()):
        x = _frames.arranged(x, config.column_names)
        if any(column.categories for column in config.columns or ()):
            from . import tables

            x = tables.raw_rows(tables.as_pandas(x), config.columns or ())
    return as_rows(x, config.input_shape, name)


def host_array_of(x: Any, config: Config, name: str = "x") -> NDArray[Any]:
    """`rows_of` for what works on the host: a matrix (n, D) of a type that the engine reads."""
    if _gpu.is_there(x):
        raise TypeError(f"{name} is in a GPU's memory, and this works on the host: pass a copy there, as {name}.cpu()")
    array: NDArray[Any] = rows_of(x, config, name).array
    if array.dtype == np.uint16:  # the words of bfloat16; integers are converted
        return _bfloat16.widened(array)
    return array


def as_rows(x: Any, shape: Sequence[int], name: str = "x") -> _core.Rows:
    """Rows of `x`, which has shape (n, *shape) or (n, D) with D the product of `shape`; on a GPU too, in place."""
    if _gpu.is_there(x):
        return _gpu.rows(x, shape, name)
    refuse_labels(x, name)
    words = _bfloat16.words_of(x)
    array = _as_ndarray(x, name) if words is None else words
    mapped = _is_memory_mapped(array)
    matrix = _as_matrix(array, tuple(shape), name, mapped)
    if words is None and (matrix.dtype.char not in _READ_IN_PLACE or not matrix.dtype.isnative):
        matrix = _convert(matrix, name, mapped)
    itemsize, rows = matrix.itemsize, matrix.shape[0]
    neighbours = matrix.strides[1] == itemsize or matrix.shape[1] == 1
    # A row stride of 0 (np.broadcast_to) would read as "rows are neighbours".
    if not neighbours or not matrix.flags.aligned or (rows > 1 and matrix.strides[0] == 0):
        if mapped:
            raise _scattered_map(name)
        matrix = matrix.copy(order="C")
    return _core.Rows(matrix, mapped, words is not None)


def refuse_labels(x: Any, name: str) -> None:
    """TypeError for (rows, labels), which supervised learning takes."""
    shapes = [getattr(one, "shape", None) for one in x] if isinstance(x, tuple) else []
    if len(shapes) > 1 and len(shapes[0] or ()) > 1 and shapes[1] != shapes[0]:
        raise TypeError(
            f"{name} is a tuple of {len(shapes)}, such as rows and their labels; labels are not used: pass {name}[0]"
        )


def as_codes(z: Any, latent: int, name: str = "z") -> NDArray[np.float32]:
    """`z` as contiguous float32 codes of shape (n, latent)."""
    array = _as_numbers(z, name)
    if array.ndim == 1:
        raise ValueError(f"{name} has shape {array.shape}; one code is a matrix of one row: {name}[None, :]")
    if array.ndim != 2 or array.shape[1] != latent:
        raise ValueError(f"{name} has shape {array.shape}; codes have shape (n, {latent})")
    if array.shape[0] == 0:
        raise ValueError(f"{name} has no rows")
    return np.ascontiguousarray(array, dtype=np.float32)


def as_noise(noise: Any, rows: int, latent: int, *, samples: bool) -> NDArray[np.float32] | None:
    """`noise` as float32 of shape (n, Z) or, with `samples`, (S, n, Z); None stays None."""
    if noise is None:
        return None
    array = _as_numbers(noise, "noise")
    if samples and array.ndim == 2:
        array = array[None]
    if array.ndim != 2 + samples or array.shape[-2:] != (rows, latent) or array.shape[0] == 0:
        expected = f"({rows}, {latent})" + (f" or (samples, {rows}, {latent})" if samples else "")
        raise ValueError(f"noise has shape {np.shape(noise)}; expected {expected}")
    return np.ascontiguousarray(array, dtype=np.float32)


def as_parameter(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float32]:
    """`value` as a finite float32 parameter of the given shape."""
    array = np.ascontiguousarray(_as_numbers(value, name), dtype=np.float32)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; the model's has {shape}")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} holds {array[where]} at {where}; parameters must be finite")
    return array


def _as_numbers(x: Any, name: str) -> NDArray[Any]:
    array = _as_ndarray(x, name)
    if array.dtype.char not in _READ_IN_PLACE and array.dtype.char not in _CONVERTED:
        raise _not_numbers(array.dtype, name)
    return array


def _as_ndarray(x: Any, name: str) -> NDArray[Any]:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; give the masked values a value: {name}.filled(0)")
    if isinstance(x, np.ndarray):
        return _bfloat16.as_array(x)
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        raise TypeError(f"{name} is a sparse matrix, which this version does not read; pass {name}.toarray()")
    if _frames.is_table(x):
        return _of_table(x, name)
    if hasattr(x, "__getitem__") and not hasattr(x, "__iter__") and not hasattr(x, "__array__"):
        raise TypeError(
            f"{name} ({type(x).__name__}) gives single rows by their index; pass its array or tensor, "
            f"or batches: torch.utils.data.DataLoader({name}, batch_size=128)"
        )
    try:
        if hasattr(x, "to_numpy"):
            return np.asarray(x.to_numpy())
        if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
            return np.from_dlpack(x)
        return _bfloat16.as_array(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name} ({type(x).__name__}) does not convert to a NumPy array: {error}") from error


def _of_table(table: Any, name: str) -> NDArray[Any]:
    array = np.asarray(table)
    if array.dtype.char in _READ_IN_PLACE or array.dtype.char in _CONVERTED:
        return array
    return np.column_stack([*_frames.numbers_of(table, TypeError, name).values()])


def _as_matrix(array: NDArray[Any], shape: tuple[int, ...], name: str, mapped: bool) -> NDArray[Any]:
    if array.dtype == object and array.ndim == 0:
        raise TypeError(f"{name} is {array.item()!r:.60}, expected rows of numbers, such as a NumPy array (n, D)")
    width = int(np.prod(shape, dtype=np.int64))
    if array.shape[1:] != shape and not (array.ndim == 2 and array.shape[1] == width):
        raise ValueError(f"{name} has shape {array.shape}; {_expected(array, shape, width, name)}")
    if array.shape[0] == 0:
        raise ValueError(f"{name} has no rows: its shape is {array.shape}")
    if mapped and array.ndim > 2 and not array[0].flags.c_contiguous:
        raise _scattered_map(name)
    return array.reshape(array.shape[0], width)  # a view, unless an image's pixels are scattered


def _expected(array: NDArray[Any], shape: tuple[int, ...], width: int, name: str) -> str:
    expected = f"the model reads {width} columns"
    if len(shape) > 1:
        expected += f", as (n, {width}) or (n, {', '.join(map(str, shape))})"
    if array.shape == shape or array.shape == (width,):
        expected += f"; one row is a matrix of one row: {name}[None, {', '.join(':' * array.ndim)}]"
    return expected


def _convert(matrix: NDArray[Any], name: str, mapped: bool) -> NDArray[Any]:
    kind = matrix.dtype.newbyteorder("=").char
    if kind not in _READ_IN_PLACE and kind not in _CONVERTED:
        raise _not_numbers(matrix.dtype, name)
    if kind in _READ_IN_PLACE:
        target = matrix.dtype.newbyteorder("=")
    else:
        target = np.dtype(np.float64 if kind == "g" else np.float32)
    if mapped:
        raise TypeError(
            f"{name} is a memory map of {matrix.dtype}, which is never read whole; "
            f"a map must hold {_READABLE}: save it again with {name}.astype('{target}')"
        )
    return matrix.astype(target)


def _not_numbers(dtype: np.dtype[Any], name: str) -> TypeError:
    if dtype.kind == "c":
        fix = f"pass its parts as columns, such as np.hstack([{name}.real, {name}.imag])"
    elif dtype.kind == "O":
        fix = f"its rows may differ in length or hold text; convert with np.asarray({name}, dtype='float32')"
    else:
        fix = f"convert it to numbers, such as {name}.astype('float32')"
    return TypeError(f"{name} has dtype {dtype}, expected {_READABLE}; {fix}")


def _scattered_map(name: str) -> TypeError:
    return TypeError(
        f"{name} is a memory map whose rows are not contiguous, and a map is never read whole; "
        f"save it again in C order: np.save(path, np.ascontiguousarray({name}))"
    )


def _is_memory_mapped(array: NDArray[Any]) -> bool:
    owner: Any = array
    while isinstance(owner, (np.ndarray, memoryview)):
        if isinstance(owner, np.memmap):
            return True
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    return isinstance(owner, mmap.mmap)
