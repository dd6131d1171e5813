# SPDX-License-Identifier: MIT
"""Arrays in a GPU's memory: rows that are read there, and results that stay."""

import ctypes
from typing import Any

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _core
from gpus import needs_gpu


class Foreign:
    """Another library's array: a GPU's memory told by __cuda_array_interface__ alone."""

    def __init__(self, array: fv.DeviceArray, **changes: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **changes}


@needs_gpu
def test_rows_on_the_gpu_are_read_there_and_results_stay(make_model, x):
    model = make_model(device="cuda", input_shape=(3, 4))
    there = fv.DeviceArray(x)
    for rows in (there, Foreign(there), Foreign(there, stream=1), Foreign(there, version=2), there.reshape(90, 3, 4)):
        mu, logvar = model.encode(rows)
        assert isinstance(mu, fv.DeviceArray)
        assert np.array_equal(np.asarray(mu), model.encode(x)[0])
        assert np.array_equal(np.asarray(logvar), model.encode(x)[1])
    images = model.decode(mu)
    assert images.shape == (90, 3, 4)
    assert np.array_equal(np.asarray(images), model.decode(np.asarray(mu)))
    assert np.array_equal(np.asarray(model.reconstruct(there)), model.reconstruct(x))
    scores = model.elbo(there, samples=3)
    assert scores.dtype == np.float64
    assert np.array_equal(np.asarray(scores), model.elbo(x, samples=3))
    assert model.contributions(there).shape == (90, 12)


class HalfRows:
    """Rows of bfloat16 in a GPU's memory, as PyTorch gives them: a DLPack capsule that says so."""

    def __init__(self, words: np.ndarray) -> None:
        self.memory = fv.DeviceArray(words.view(np.float32))

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.memory.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.memory.__dlpack__(**options)
        pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
        pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        tensor = pointer_of(capsule, b"dltensor")
        # struct DLTensor: data, device (2 x int32), ndim (int32), dtype (code, bits: bytes; lanes), shape
        (ctypes.c_uint8 * 2).from_address(tensor + 20)[:] = 4, 16
        (ctypes.c_int64 * 2).from_address(ctypes.c_size_t.from_address(tensor + 24).value)[1] *= 2
        return capsule


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bfloat16_on_the_gpu(make_model, same_bits, precision):
    words = np.random.default_rng(0).integers(0x3C00, 0x3F80, (40, 16)).astype(np.uint16)
    floats = np.left_shift(words, 16, dtype=np.uint32).view(np.float32)
    models = [make_model(device="cuda", input_shape=16) for _ in range(2)]
    for model, rows in zip(models, (HalfRows(words), floats), strict=True):
        assert np.array_equal(np.asarray(model.encode(rows)[0]), models[1].encode(floats)[0])
        assert np.array_equal(np.asarray(model.elbo(rows)), models[1].elbo(floats))
    for model, rows in zip(models, (HalfRows(words), floats), strict=True):
        fv.Trainer(model, batch_size=16, precision=precision).fit(rows, epochs=2)
    assert same_bits(models[0].parameters(), models[1].parameters())


@needs_gpu
def test_training_on_rows_on_the_gpu(make_model, x, same_bits):
    there, models = fv.DeviceArray(x), [make_model(device="cuda") for _ in range(2)]
    trainers = [fv.Trainer(m, batch_size=16, seed=1) for m in models]
    for trainer, rows, held_out in zip(trainers, (x, there), (x[:20], fv.DeviceArray(x[:20])), strict=True):
        trainer.fit(rows, epochs=2, validation_data=held_out)
        trainer.step(rows)
    assert np.array_equal(trainers[0].history["val_loss"], trainers[1].history["val_loss"])
    assert same_bits(models[0].parameters(), models[1].parameters())
    assert trainers[0].evaluate(x) == trainers[1].evaluate(there)
    trainers[1].fit(x, epochs=1)  # the same data, wherever it lies
    trainers[1].fit([there, there], epochs=1)


@needs_gpu
def test_bad_rows_on_the_gpu_are_named(make_model, x):
    model = make_model(device="cuda")
    x[7, 5] = 1.5
    with pytest.raises(ValueError, match=r"holds 1.5\d* in row 7, column 5; Bernoulli targets lie in"):
        model.encode(fv.DeviceArray(x))
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="x holds NaN in row 3, column 2"):
        fv.Trainer(model).fit(fv.DeviceArray(x), epochs=1)
    with pytest.raises(ValueError, match="z holds NaN or an infinity in row 0, column 1"):
        model.decode(fv.DeviceArray([[0.0, np.inf, 0.0]]))


@needs_gpu
def test_what_is_no_dense_matrix_there_is_refused(make_model, x):
    model, there = make_model(device="cuda"), fv.DeviceArray(x)
    for changes, error, words in (
        ({"typestr": "<i8"}, TypeError, "holds int64 on a GPU"),
        ({"strides": (96, 4)}, ValueError, "not contiguous"),
        ({"shape": (90, 11)}, ValueError, "the model reads"),
        ({"shape": (0, 12)}, ValueError, "no rows"),
        ({"mask": there}, TypeError, "masked"),
        ({"data": (there.__cuda_array_interface__["data"][0] + 2, False)}, ValueError, "not aligned"),
    ):
        with pytest.raises(error, match=words):
            model.encode(Foreign(there, **changes))
    cpu = make_model()
    for ask, rows in ((cpu.encode, there), (fv.Trainer(cpu).evaluate, there), (cpu.decode, there.reshape(-1, 3))):
        with pytest.raises(ValueError, match="in a GPU's memory"):
            ask(rows)
    with pytest.raises(TypeError, match="works on the host"):
        fv.Sampler(model).nearest(there, x)


@needs_gpu
def test_an_array_is_handed_over(x):
    there = fv.DeviceArray(x)
    assert there.__dlpack_device__() == (2, 0)
    capsule = there.__dlpack__(stream=None)
    assert "dltensor" in repr(capsule)
    address, shape, strides, typestr, index, keeper = _core.open_dlpack(capsule)
    assert (address, typestr, index) == (there.__cuda_array_interface__["data"][0], "<f4", 0)
    assert (shape, strides) == ((90, 12), (48, 4))
    with pytest.raises(ValueError, match="incorrect name"):  # a capsule is taken once
        _core.open_dlpack(capsule)
    with pytest.raises(BufferError, match="where it is"):
        there.__dlpack__(dl_device=(1, 0))
    del keeper, capsule
    assert np.array_equal(np.asarray(there), x)
    assert there.reshape(-1, 4).shape == (270, 4)
    with pytest.raises(ValueError, match="reshape"):
        there.reshape(7, 7)
    assert len(there) == 90
    assert repr(there) == "DeviceArray((90, 12), float32, 'cuda:0')"
    with pytest.raises(ValueError, match="copy of it"):
        there.__array__(copy=False)


@needs_gpu
def test_pytorch_takes_and_gives_memory(make_model, x):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch sees no GPU")
    model = make_model(device="cuda")
    rows = torch.as_tensor(x, device="cuda")
    mu = torch.from_dlpack(model.encode(rows)[0])
    assert mu.is_cuda
    assert np.array_equal(mu.cpu().numpy(), model.encode(x)[0])
    fv.Trainer(model, batch_size=16).fit(rows, epochs=1)
    with pytest.raises(TypeError, match="gradient"):
        model.encode(rows.clone().requires_grad_())
