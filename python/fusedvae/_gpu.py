# SPDX-License-Identifier: MIT
"""Arrays in a GPU's memory, read where they are: PyTorch's, CuPy's, JAX's, Numba's and fusedvae's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core

# What DLPack's __dlpack_device__ calls a GPU's memory, and memory that CUDA moves between host and GPU.
_CUDA, _CUDA_MANAGED = 2, 13
# What both protocols call CUDA's default stream.
_DEFAULT_STREAM = 1
_READ = {"<f4": 4, "<f8": 8, "<f2": 2, "bfloat16": 2, "|u1": 1, "|b1": 1}  # bytes of each


class DeviceArray:
    """Numbers in a GPU's memory, dense and row-major: what a model there returns for rows that are there too.

    Other libraries take it without a copy, `torch.from_dlpack(a)`, `cupy.asarray(a)`, by `__dlpack__` or
    `__cuda_array_interface__`; `numpy.asarray(a)` copies it to the host. The numbers are there when a method returns
    it, so that no stream has to wait.

    - shape, dtype: as NumPy's, float32 or float64; device: such as "cuda:0"

    RuntimeError where there is no GPU, and MemoryError where its memory is full.
    """

    def __init__(self, values: Any, device: str = "cuda") -> None:
        """A copy of values, as float32, in the memory of `device`."""
        self._adopt(_core.DeviceArray(device, np.ascontiguousarray(values, np.float32)))

    @classmethod
    def _wrap(cls, core: _core.DeviceArray) -> DeviceArray:
        array = cls.__new__(cls)
        array._adopt(core)
        return array

    def _adopt(self, core: _core.DeviceArray) -> None:
        self._core = core
        self.shape: tuple[int, ...] = core.shape
        self.dtype = np.dtype(np.float32 if core.itemsize == 4 else np.float64)
        self.device = f"cuda:{core.index}"

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def reshape(self, *shape: int) -> DeviceArray:
        """The same numbers in another shape, one extent of which may be -1. ValueError where they do not fit."""
        other = DeviceArray._wrap(self._core)
        other.shape = np.lib.stride_tricks.as_strided(np.empty(1), self.shape, (0,) * self.ndim).reshape(shape).shape
        return other

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._core.address, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("the array is handed over where it is; numpy.asarray copies it to the host")
        return self._core.to_dlpack(self.shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self._core.index

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the array is in a GPU's memory; NumPy reads a copy of it")
        return self._core.download().reshape(self.shape).astype(self.dtype if dtype is None else dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.shape}, {self.dtype}, {self.device!r})"


def usable_gpus() -> list[str]:
    """Those of the GPUs here that the engine runs on: it refuses old ones."""

    def opens(name: str) -> bool:
        try:
            _core.device_properties(name)
        except RuntimeError:
            return False
        return True

    return [name for name in (f"cuda:{i}" for i in range(_core.device_count())) if opens(name)]


def why_no_gpu() -> str:
    """What stands between this process and a GPU, where `available_devices` names none."""
    try:
        _core.device_properties("cuda")
    except (RuntimeError, ValueError) as error:
        return str(error)
    raise AssertionError("a GPU that was not counted")


def result(array: Any) -> Any:
    """What a method returns: NumPy's array as it is, the engine's in a GPU's memory as a `DeviceArray`."""
    return DeviceArray._wrap(array) if isinstance(array, _core.DeviceArray) else array


def is_there(x: Any) -> bool:
    """Whether x is an array in a GPU's memory."""
    if isinstance(x, np.ndarray):
        return False
    if hasattr(x, "__dlpack_device__"):
        try:
            return x.__dlpack_device__()[0] in (_CUDA, _CUDA_MANAGED)
        except (BufferError, RuntimeError, TypeError, ValueError):  # what has no memory at all
            return False
    return hasattr(x, "__cuda_array_interface__")


def rows(x: Any, shape: Sequence[int], name: str) -> _core.Rows:
    """Rows of x (n, *shape) or (n, D), in place; the engine waits for the stream that makes them.

    TypeError for values that are not read, ValueError for rows that are not dense.
    """
    address, extents, strides, typestr, stream, keeper = _opened(x, name)
    if typestr not in _READ:
        raise TypeError(
            f"{name} holds {np.dtype(typestr)} on a GPU, expected float32, float64, float16, bfloat16, uint8 or bool: "
            f"convert it there, with {name}.float() or {name}.astype('float32')"
        )
    width = int(np.prod(shape, dtype=np.int64))
    if extents[1:] != tuple(shape) and not (len(extents) == 2 and extents[1] == width):
        raise ValueError(f"{name} has shape {extents}; the model reads (n, {', '.join(map(str, shape))})")
    if not extents[0]:
        raise ValueError(f"{name} has no rows: its shape is {extents}")
    item = dense = _READ[typestr]
    for extent, stride in zip(reversed(extents), reversed(strides or ()), strict=False):
        if stride != dense and extent > 1:
            raise ValueError(f"{name} is not contiguous on its GPU: pass {name}.contiguous() or a dense copy")
        dense *= extent
    if address % item:
        raise ValueError(f"{name} is not aligned to its {item}-byte values; pass a copy")
    return _core.Rows.on_gpu(address, typestr, extents[0], width, stream, keeper)


def _opened(x: Any, name: str) -> tuple[int, tuple[int, ...], tuple[int, ...] | None, str, int | None, Any]:
    """Address, shape, strides in bytes (None: dense), type, stream to wait for, and what keeps the memory."""
    try:
        if hasattr(x, "__dlpack__"):
            address, extents, strides, typestr, _, keeper = _core.open_dlpack(x.__dlpack__(stream=_DEFAULT_STREAM))
            return address, extents, strides, typestr, _DEFAULT_STREAM, keeper
        interface = x.__cuda_array_interface__
    except (AttributeError, BufferError, RuntimeError, ValueError) as error:
        raise TypeError(f"{name} ({type(x).__name__}) does not give its memory on a GPU: {error}") from error
    if interface.get("mask") is not None:
        raise TypeError(f"{name} is a masked array; give the masked values a value")
    # Before version 3 of the protocol nothing is said of streams.
    stream = interface.get("stream") if interface["version"] >= 3 else _DEFAULT_STREAM
    extents, strides = tuple(interface["shape"]), interface.get("strides")
    return interface["data"][0], extents, strides and tuple(strides), interface["typestr"], stream, x
