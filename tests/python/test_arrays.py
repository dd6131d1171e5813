# SPDX-License-Identifier: MIT
"""What is read in place, what is converted, what is refused and in which words."""

import logging
import mmap
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest
from fusedvae._arrays import as_codes, as_noise, as_rows
from fusedvae._spool import spool


def in_place(x: np.ndarray, *shape: int) -> bool:
    return np.shares_memory(as_rows(x, shape or (12,)).array, x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "bool"])
def test_fitting_arrays_are_read_in_place(dtype: str):
    x = np.ones((6, 12), dtype=dtype)
    assert in_place(x)
    x.flags.writeable = False
    assert in_place(x)


def test_rows_may_lie_apart_or_backwards():
    wide = np.zeros((8, 20), np.float32)
    assert in_place(wide[:, 3:15])
    assert in_place(wide[::2, :12])
    assert in_place(wide[::-1, :12])


def test_images_are_read_in_place():
    images = np.zeros((5, 3, 4), np.uint8)
    assert in_place(images, 3, 4)
    assert in_place(images.reshape(5, 12), 3, 4)
    assert in_place(np.zeros((5, 6, 4), np.uint8)[:, 2:5], 3, 4)


@pytest.mark.parametrize(
    "x",
    [
        np.asfortranarray(np.arange(72.0, dtype=np.float32).reshape(6, 12) / 72),
        (np.arange(72.0) / 72).reshape(6, 12).astype(">f4"),
        np.broadcast_to(np.arange(12, dtype=np.float32) / 12, (6, 12)),
        np.frombuffer(b"x" + (np.arange(72, dtype=np.float32) / 72).tobytes(), np.float32, offset=1).reshape(6, 12),
        np.zeros((6, 24), np.float32)[:, ::2],
        np.eye(6, 12, dtype=np.int64),
        np.eye(6, 12, dtype=np.int8),
        np.eye(6, 12, dtype=np.longdouble),
        np.eye(6, 12).tolist(),
    ],
    ids=["fortran", "big-endian", "broadcast", "misaligned", "strided", "int64", "int8", "longdouble", "list"],
)
def test_other_layouts_are_converted_once(x: np.ndarray, make_model):
    model = make_model()
    expected = model.encode(np.array(x, dtype=np.float32, order="C"))
    for got, want in zip(model.encode(x), expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "bool"])
def test_dtypes_agree(dtype: str, make_model):
    x = (np.arange(60 * 12).reshape(60, 12) % 7 < 3).astype(dtype)
    model = make_model(uint8_scale=1.0)
    np.testing.assert_array_equal(model.encode(x)[0], model.encode(x.astype(np.float32))[0])
    np.testing.assert_array_equal(model.elbo(x), model.elbo(x.astype(np.float32)))


class Bfloat16:
    """An array of bfloat16 as ml_dtypes' and JAX's are: NumPy knows a dtype of two bytes, and its name."""

    dtype = "bfloat16"

    def __init__(self, x: np.ndarray) -> None:
        self.words = np.right_shift(np.ascontiguousarray(x, np.float32).view(np.uint32), 16).astype(np.uint16)
        self.floats = np.left_shift(self.words, 16, dtype=np.uint32).view(np.float32)
        self.shape = x.shape

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self.words.view("V2")


def test_bfloat16_is_read_in_place(make_model, x, same_bits):
    half = Bfloat16(x)
    assert np.shares_memory(as_rows(half, (12,)).array, half.words)
    model = make_model()
    np.testing.assert_array_equal(model.encode(half)[0], model.encode(half.floats)[0])
    np.testing.assert_array_equal(model.elbo(half), model.elbo(half.floats))
    np.testing.assert_array_equal(as_codes(Bfloat16(x[:, :3]), 3), half.floats[:, :3])
    assert not np.array_equal(half.floats, x)
    runs = []
    for rows in (half, half.floats):
        runs.append(make_model())
        fv.Trainer(runs[-1], batch_size=32).fit(rows, epochs=2)
    assert same_bits(*(run.parameters() for run in runs))
    half.words[3, 4] = 0x7F80
    with pytest.raises(ValueError, match="x holds an infinity in row 3, column 4"):
        model.encode(half)


def test_pytorchs_bfloat16(make_model, x):
    torch = pytest.importorskip("torch")
    half = torch.from_numpy(x).to(torch.bfloat16)
    assert as_rows(half, (12,)).array.ctypes.data == half.data_ptr()
    model = make_model()
    for rows in (half, half[::2], half.t().contiguous().t()):
        np.testing.assert_array_equal(model.encode(rows)[0], model.encode(rows.float())[0])
    np.testing.assert_array_equal(spool([half, half]), torch.cat([half, half]).float().numpy())


def test_views_give_the_scores_of_copies(make_model, x):
    model = make_model()
    wide = np.zeros((180, 20), np.float32)
    wide[::2, 3:15] = x
    np.testing.assert_array_equal(model.elbo(wide[::2, 3:15]), model.elbo(x))
    np.testing.assert_array_equal(model.elbo(x[::-1]), model.elbo(x)[::-1])


def test_uint8_is_scaled(make_model):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12), dtype=np.uint8)
    model = make_model()
    np.testing.assert_allclose(model.encode(pixels)[0], model.encode(pixels / np.float32(255))[0], rtol=1e-5, atol=1e-6)


class Holder:
    """Gives its numbers by one protocol alone."""

    def __init__(self, array: np.ndarray, *protocols: str):
        for name in protocols:
            setattr(type(self), name, lambda self, *args, name=name, **kw: getattr(array, name)(*args, **kw))


def test_protocols(make_model, x):
    class ByArray(Holder):
        pass

    class ByDlpack(Holder):
        pass

    model = make_model()
    expected = model.encode(x)[0]
    np.testing.assert_array_equal(model.encode(ByArray(x, "__array__"))[0], expected)
    by_dlpack = ByDlpack(x.copy(), "__dlpack__", "__dlpack_device__")
    np.testing.assert_array_equal(model.encode(by_dlpack)[0], expected)
    assert np.shares_memory(as_rows(by_dlpack, (12,)).array, np.from_dlpack(by_dlpack))


def test_data_frames(make_model, x):
    pandas = pytest.importorskip("pandas")
    model = make_model()
    np.testing.assert_array_equal(model.encode(pandas.DataFrame(x))[0], model.encode(x)[0])
    with pytest.raises(TypeError, match="x: not numeric: 'name'"):
        model.encode(pandas.DataFrame(x[:, 1:]).assign(name="text"))


def test_tensors(make_model, x):
    torch = pytest.importorskip("torch")
    model = make_model()
    np.testing.assert_array_equal(model.encode(torch.from_numpy(x))[0], model.encode(x)[0])
    with pytest.raises(TypeError, match="detach"):
        model.encode(torch.from_numpy(x).requires_grad_())


def test_sparse_matrices_are_refused(make_model):
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"x\.toarray\(\)"):
        make_model().encode(sparse.csr_matrix((4, 12)))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.array([["a"] * 12]), ["dtype <U1", "astype('float32')"]),
        (np.ones((2, 12), complex), ["complex128", "x.real"]),
        (np.ones((2, 12), object), ["object", "dtype='float32'"]),
        (np.zeros((2, 12), "datetime64[s]"), ["datetime64", "astype"]),
        (np.ma.masked_array(np.zeros((2, 12))), ["x.filled(0)"]),
        ([[1.0] * 12, [1.0]], ["does not convert"]),
        (object(), ["object"]),
    ],
    ids=["text", "complex", "object", "dates", "masked", "ragged", "none"],
)
def test_what_holds_no_numbers(x: object, words: list[str], make_model):
    if isinstance(x, (np.ndarray, list)):
        with pytest.raises(TypeError) as caught:
            make_model().encode(x)
        assert all(word in str(caught.value) for word in words)
    else:
        with pytest.raises((TypeError, ValueError)):
            make_model().encode(x)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((12,), ["(12,)", "x[None, :]"]),
        ((90, 11), ["(90, 11)", "reads 12 columns"]),
        ((90, 3, 5), ["(90, 3, 5)", "reads 12 columns"]),
        ((), ["()"]),
        ((0, 12), ["no rows"]),
    ],
)
def test_wrong_shapes(shape: tuple[int, ...], words: list[str], make_model):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make_model().encode(np.zeros(shape, np.float32))
    assert all(word in str(caught.value) for word in words)


def test_one_image_names_the_fix(make_model):
    model = make_model(input_shape=(3, 4))
    with pytest.raises(ValueError, match=r"\(n, 12\) or \(n, 3, 4\).*x\[None, :, :\]"):
        model.encode(np.zeros((3, 4), np.float32))
    assert model.encode(np.zeros((1, 3, 4)))[0].shape == (1, 3)


def test_codes_and_noise():
    assert as_codes([[1, 2]], 2).dtype == np.float32
    with pytest.raises(ValueError, match=r"z\[None, :\]"):
        as_codes([1.0, 2.0], 2)
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        as_codes([[1.0, 2.0, 3.0]], 2)
    with pytest.raises(TypeError, match="z"):
        as_codes([["a", "b"]], 2)
    noise = np.zeros((4, 2))
    assert as_noise(noise, 4, 2, samples=True).shape == (1, 4, 2)
    assert as_noise(noise, 4, 2, samples=False).shape == (4, 2)
    with pytest.raises(ValueError, match=r"\(5, 2\) or \(samples, 5, 2\)"):
        as_noise(noise, 5, 2, samples=True)


# ---- memory maps


def test_the_scale_of_bytes_is_logged(make_model, x, caplog):
    trainer = fv.Trainer(make_model(), batch_size=32)
    with caplog.at_level(logging.INFO, "fusedvae"):
        trainer.fit(x, epochs=1)
        assert not caplog.records
        trainer.fit((x * 255).astype(np.uint8), epochs=1)
    assert [record.name for record in caplog.records] == ["fusedvae"]
    assert "uint8_scale = 0.00392157" in caplog.text


@pytest.fixture
def mapped(tmp_path: Path):
    def write(x: np.ndarray) -> np.ndarray:
        np.save(tmp_path / "x.npy", x)
        return np.load(tmp_path / "x.npy", mmap_mode="r")

    return write


def test_memory_maps_give_the_same_bits(mapped, make_model, x, same_bits):
    trained = []
    for data in (x, mapped(x)):
        model = make_model()
        fv.Trainer(model, batch_size=32).fit(data, epochs=2)
        trained.append(model.parameters())
    assert same_bits(*trained)


def test_memory_maps_are_never_read_ahead(mapped, make_model, x):
    x = x.copy()
    x[80, 3] = np.nan
    data = mapped(x)
    trainer = fv.Trainer(make_model(), batch_size=10, shuffle=False)

    class FirstStep(fv.Callback):
        def on_batch_end(self, trainer, progress):
            return True

    trainer.fit(data, epochs=1, callbacks=FirstStep())
    assert trainer.global_step == 1
    with pytest.raises(ValueError, match=r"NaN in row 80, column 3.* stands before step 8 \(epoch 0, batch 8\)"):
        trainer.fit(data, epochs=1)
    assert trainer.global_step == 8
    assert all(np.isfinite(values).all() for values in trainer.model.parameters().values())


def test_views_of_memory_maps_stay_maps(mapped, x, tmp_path):
    data = mapped(np.hstack([x, x]))
    for view in (data[10:, :12], np.asarray(data)[::2, 12:], data.view(np.ndarray)[::-1, 3:15]):
        assert in_place(view)
    with (tmp_path / "x.npy").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        rows = as_rows(np.frombuffer(raw, np.uint8)[:120].reshape(10, 12), (12,))
        with pytest.raises(TypeError, match="memory map of int16"):
            as_rows(np.frombuffer(raw, np.int16)[:120].reshape(10, 12), (12,))
        del rows


def test_maps_that_would_need_a_copy_are_refused(mapped, x):
    with pytest.raises(TypeError, match=r"never read whole.*astype\('float32'\)"):
        as_rows(mapped(np.zeros((5, 12), np.int32)), (12,))
    with pytest.raises(TypeError, match="C order"):
        as_rows(mapped(np.asfortranarray(x)), (12,))
    with pytest.raises(TypeError, match="C order"):
        as_rows(mapped(np.zeros((5, 4, 3), np.float32)).transpose(0, 2, 1), (3, 4))
