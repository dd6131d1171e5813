# SPDX-License-Identifier: MIT
"""fusedvae.data: every kind of file read back exactly; damaged and hostile ones refused with a sentence that helps."""

import functools
import gzip
import hashlib
import http.server
import struct
import sys
import threading
import zipfile

import numpy as np
import pytest
from fusedvae import _readers, data

RNG = np.random.default_rng(0)


def idx_bytes(array, code):
    """`array` as an IDX file's bytes, written from the format's description."""
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


# ---- names and the split --------------------------------------------------------------------------------------------


def test_digits():
    pytest.importorskip("sklearn")
    digits = data.load("digits")
    assert digits.train.shape == (1617, 8, 8)
    assert digits.test.shape == (180, 8, 8)
    assert digits.train.dtype == np.float32
    assert digits.image_shape == digits.input_shape == (8, 8)
    assert digits.train.min() == 0
    assert digits.train.max() == 1
    assert set(np.concatenate([digits.labels, digits.test_labels])) == set(range(10))


def test_split_is_a_partition_that_the_seed_decides(tmp_path):
    rows = np.arange(100, dtype=np.float32).reshape(50, 2)
    np.savez(tmp_path / "a.npz", X=rows, y=np.arange(50))
    first, again, other = (data.load(tmp_path / "a.npz", test_fraction=0.2, seed=seed) for seed in (1, 1, 2))
    assert first.train.shape == (40, 2)
    assert first.test.shape == (10, 2)
    np.testing.assert_array_equal(np.sort(np.concatenate([first.train, first.test])[:, 0]), rows[:, 0])
    np.testing.assert_array_equal(first.train[:, 0] / 2, first.labels)
    np.testing.assert_array_equal(first.test[:, 0] / 2, first.test_labels)
    np.testing.assert_array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


@pytest.mark.parametrize(("rows", "fraction", "held_out"), [(2, 0.001, 1), (3, 0.99, 2), (10, 0.25, 2), (4, 0.0, None)])
def test_split_sizes(tmp_path, rows, fraction, held_out):
    np.save(tmp_path / "x.npy", np.zeros((rows, 3), np.float32))
    loaded = data.load(tmp_path / "x.npy", test_fraction=fraction)
    assert (None if loaded.test is None else len(loaded.test)) == held_out
    assert len(loaded.train) == rows - (held_out or 0)


def test_bad_split(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="has 1 row; two are needed"):
        data.load(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"test_fraction must be in \[0, 1\), it is 1"):
        data.load(tmp_path / "x.npy", test_fraction=1)


def test_unknown_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder, and no data set of that name.*digits"):
        data.load("digit")
    (tmp_path / "notes.doc").write_text("hello")
    with pytest.raises(ValueError, match="of no known kind"):
        data.load(tmp_path / "notes.doc")


# ---- .npy and .npz --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint8, bool])
def test_npy_keeps_dtype_and_values(tmp_path, dtype):
    x = RNG.integers(0, 2, (7, 3, 4)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    loaded = data.load(tmp_path / "x.npy", test_fraction=0)
    assert loaded.train.dtype == dtype
    assert loaded.image_shape == (3, 4)
    assert loaded.name == "x.npy"
    np.testing.assert_array_equal(loaded.train, x)


def test_large_npy_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(_readers, "MAP_BYTES", 100)
    x = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.save(tmp_path / "x.npy", x)
    loaded = data.load(tmp_path / "x.npy", test_fraction=0.2)
    assert isinstance(loaded.train, np.memmap)
    assert isinstance(loaded.test, np.memmap)
    np.testing.assert_array_equal(loaded.train, x[:16])
    np.testing.assert_array_equal(loaded.test, x[16:])


def test_npy_refuses_pickles_truncation_and_vectors(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object))
    with pytest.raises(ValueError, match=r"objects.npy is not a readable .npy file.*allow_pickle"):
        data.load(tmp_path / "objects.npy")
    np.save(tmp_path / "x.npy", np.zeros((10, 10)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"short.npy is not a readable .npy file"):
        data.load(tmp_path / "short.npy")
    np.save(tmp_path / "vector.npy", np.zeros(5))
    with pytest.raises(ValueError, match=r"shape \(5,\); rows of data need at least two axes"):
        data.load(tmp_path / "vector.npy")


def test_image_shape_is_given_where_the_file_does_not_say(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(60, dtype=np.float32).reshape(5, 12))
    assert data.load(tmp_path / "x.npy").image_shape is None
    assert data.load(tmp_path / "x.npy", image_shape=(3, 4)).train.shape == (4, 3, 4)
    with pytest.raises(ValueError, match=r"rows of shape \(12,\), which are no images of shape \(5, 5\)"):
        data.load(tmp_path / "x.npy", image_shape=(5, 5))


def test_npz_chooses_by_name_or_key(tmp_path):
    parts = {"x_train": np.ones((4, 2)), "y_train": np.arange(4), "x_test": np.zeros((3, 2)), "y_test": np.arange(3)}
    np.savez(tmp_path / "keras.npz", **parts)
    loaded = data.load(tmp_path / "keras.npz")
    np.testing.assert_array_equal(loaded.train, parts["x_train"])
    np.testing.assert_array_equal(loaded.test, parts["x_test"])
    np.testing.assert_array_equal(loaded.test_labels, [0, 1, 2])
    np.savez_compressed(tmp_path / "two.npz", a=np.ones((4, 2)), b=np.zeros((4, 5)))
    assert data.load(tmp_path / "two.npz", key="b").train.shape == (3, 5)
    with pytest.raises(ValueError, match="several arrays; choose one with key=: a, b"):
        data.load(tmp_path / "two.npz")
    with pytest.raises(ValueError, match="no array 'c'"):
        data.load(tmp_path / "two.npz", key="c")
    with zipfile.ZipFile(tmp_path / "sheet.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(ValueError, match=r"sheet.xlsx .* an archive without arrays; save a spreadsheet as CSV"):
        data.load(tmp_path / "sheet.xlsx")
    (tmp_path / "bad.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"bad.npz is not a readable .npz file"):
        data.load(tmp_path / "bad.npz")


# ---- IDX ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_idx_of_every_type(tmp_path, code, dtype, zipped):
    x = RNG.integers(0, 100, (5, 2, 3)).astype(dtype)
    content = idx_bytes(x, code)
    path = tmp_path / "x-idx3"
    path.write_bytes(gzip.compress(content) if zipped else content)
    loaded = data.load(path, test_fraction=0)
    np.testing.assert_array_equal(loaded.train, x)
    assert loaded.train.dtype.isnative
    assert loaded.image_shape == (2, 3)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(4, 2, 3), 0x08)
HOSTILE = {
    "foreign": (b"\0\0\x07\x02" + GOOD[4:], "is not an IDX file"),
    "rank zero": (b"\0\0\x08\x00" + GOOD[4:], "is not an IDX file"),
    "rank 255": (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x", "is not an IDX file"),
    "short magic": (GOOD[:3], "is not an IDX file"),
    "short sizes": (GOOD[:9], "ends within its 3 sizes"),
    "short values": (GOOD[:-1], "needs 24 bytes of values, the file has 23"),
    "long values": (GOOD + b"x", "needs 24 bytes of values, the file has (25|more)"),
    "huge sizes": (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "needs 79228162458924105385300197375 bytes"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_idx_hostile(tmp_path, name, zipped):
    content, message = HOSTILE[name]
    path = tmp_path / "x-idx3"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(ValueError, match=message):
        data.load(path)


def test_idx_every_truncation(tmp_path):
    path = tmp_path / "x-idx3"
    zipped = gzip.compress(GOOD)
    for content in (GOOD, zipped):
        for length in range(2, len(content)):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match="x-idx3"):
                data.load(path)


def test_idx_without_rows(tmp_path):
    (tmp_path / "x-idx3").write_bytes(b"\0\0\x08\3" + struct.pack(">3I", 0, 4, 4))
    assert data.load(tmp_path / "x-idx3", test_fraction=0).train.shape == (0, 4, 4)
    with pytest.raises(ValueError, match="has 0 rows"):
        data.load(tmp_path / "x-idx3")


def test_mnist_folder(tmp_path):
    train, test = (RNG.integers(0, 256, (n, 4, 4)).astype(np.uint8) for n in (6, 3))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(train, 8))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(6, dtype=np.uint8), 8)))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(test, 8)))
    loaded = data.load(tmp_path)
    np.testing.assert_array_equal(loaded.train, train)
    np.testing.assert_array_equal(loaded.test, test)
    np.testing.assert_array_equal(loaded.labels, np.arange(6))
    assert loaded.test_labels is None
    assert loaded.train.dtype == np.uint8


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"a": [1, 2], "b": [0.5, 1.5], "c": [True, False], "kind": ["x", "y"], "hole": [1, None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    loaded = data.load(tmp_path / "t.parquet", label="kind", drop=["hole"], test_fraction=0)
    np.testing.assert_array_equal(loaded.train, np.array([[1, 0.5, 1], [2, 1.5, 0]], np.float32))
    assert list(loaded.labels) == ["x", "y"]
    with pytest.raises(ValueError, match="not numeric: 'kind'"):
        data.load(tmp_path / "t.parquet", drop=["hole"])
    with pytest.raises(ValueError, match="missing values in 'hole'"):
        data.load(tmp_path / "t.parquet", label="kind")
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"bad.parquet is not a readable Parquet file"):
        data.load(tmp_path / "bad.parquet")


# ---- images ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def save_image():
    image = pytest.importorskip("PIL.Image")

    def save(path, pixels):
        path.parent.mkdir(exist_ok=True)
        image.fromarray(pixels).save(path)

    return save


def test_images(tmp_path, save_image):
    x = RNG.integers(0, 256, (4, 5, 6)).astype(np.uint8)
    for i, folder in enumerate(["cat", "cat", "dog", "dog"]):
        save_image(tmp_path / folder / f"{i}.png", x[i])
    (tmp_path / "readme.txt").write_text("not an image")
    loaded = data.load(tmp_path, test_fraction=0)
    np.testing.assert_array_equal(loaded.train, x)
    assert loaded.train.dtype == np.uint8
    assert list(loaded.labels) == ["cat", "cat", "dog", "dog"]
    assert data.load(tmp_path, size=(3, 2)).train.shape == (3, 3, 2)


def test_images_must_agree(tmp_path, save_image):
    save_image(tmp_path / "a.png", np.zeros((5, 6), np.uint8))
    save_image(tmp_path / "b.png", np.full((5, 6, 3), 90, np.uint8))
    with pytest.raises(ValueError, match=r"b.png has 6 x 5 pixels in colour, .*a.png has 6 x 5 pixels in grey; give"):
        data.load(tmp_path)
    loaded = data.load(tmp_path, grey=True, test_fraction=0)
    np.testing.assert_array_equal(loaded.train, np.array([np.zeros((5, 6)), np.full((5, 6), 90)]))
    save_image(tmp_path / "c.png", np.zeros((7, 6), np.uint8))
    with pytest.raises(ValueError, match=r"c.png has 6 x 7 pixels in grey"):
        data.load(tmp_path, grey=True)


def test_images_damaged_or_absent(tmp_path, save_image):
    with pytest.raises(ValueError, match="holds no images"):
        data.load(tmp_path)
    save_image(tmp_path / "a.png", np.zeros((5, 6), np.uint8))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"b.png is not a readable image"):
        data.load(tmp_path)


# ---- options and missing libraries ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "a"}, "label= does not apply to a .npy file"),
        ({"grey": True}, "grey= does not apply"),
        ({"size": (1,)}, "size must be"),
    ],
)
def test_options_that_do_not_apply(tmp_path, options, message):
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path / "x.npy", **options)


@pytest.mark.parametrize(
    ("module", "file", "extra"),
    [("sklearn", None, "demo"), ("pyarrow", "x.parquet", "data"), ("PIL", "", "data")],
)
def test_missing_library_names_its_extra(tmp_path, monkeypatch, module, file, extra):
    monkeypatch.setitem(sys.modules, module, None)
    for loaded in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    if file:
        (tmp_path / file).write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=rf'needs {module}: pip install "fusedvae\[{extra}\]"'):
        data.load("digits" if file is None else tmp_path / file)


# ---- Fashion-MNIST --------------------------------------------------------------------------------------------------


@pytest.fixture
def fashion_server(tmp_path, monkeypatch):
    """A small Fashion-MNIST on a local server; yields (folder it serves, cache folder)."""
    served, cache = tmp_path / "served", tmp_path / "cache"
    served.mkdir()
    checksums = {}
    for name in data.FASHION_FILES:
        n = 6 if name.startswith("train") else 3
        shape = (n, 4, 4) if "images" in name else (n,)
        content = idx_bytes(RNG.integers(0, 256, shape).astype(np.uint8), 8)
        checksums[name] = hashlib.sha256(content).hexdigest()
        (served / name).write_bytes(gzip.compress(content))
    monkeypatch.setenv("FUSEDVAE_CACHE", str(cache))
    monkeypatch.setattr(data, "FASHION_DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(data, "FASHION_FILES", checksums)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=served)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(data, "FASHION_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield served, cache / "fashion-mnist"
        server.shutdown()
        thread.join()


def test_fashion_mnist_downloads_once(fashion_server):
    served, cache = fashion_server
    loaded = data.load("fashion-mnist")
    assert loaded.train.shape == (6, 4, 4)
    assert loaded.test.shape == (3, 4, 4)
    assert loaded.labels.shape == (6,)
    assert sorted(path.name for path in cache.iterdir()) == sorted(data.FASHION_FILES)
    for path in served.iterdir():
        path.unlink()
    np.testing.assert_array_equal(data.load("fashion-mnist").train, loaded.train)


def test_fashion_mnist_refuses_a_wrong_file(fashion_server):
    served, cache = fashion_server
    name = "t10k-images-idx3-ubyte.gz"
    for wrong in (gzip.compress(b"something else"), b"no gzip at all", (served / name).read_bytes()[:-12]):
        (served / name).write_bytes(wrong)
        with pytest.raises(OSError, match=r"could not be downloaded.*apt install dataset-fashion-mnist"):
            data.load("fashion-mnist")
        assert not (cache / name).exists()
        assert not list(cache.glob("tmp*"))


def test_fashion_mnist_without_network(fashion_server, monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as closed:
        monkeypatch.setattr(data, "FASHION_URL", f"http://127.0.0.1:{closed.server_port}/")
    with pytest.raises(OSError, match=r"could not be downloaded .*refused.*put train-images-idx3-ubyte.gz"):
        data.load("fashion-mnist")


def test_fashion_mnist_of_debian():
    if not data.FASHION_DEBIAN.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    for name, sha256 in data.FASHION_FILES.items():
        with gzip.open(data.FASHION_DEBIAN / name) as file:
            assert hashlib.sha256(file.read()).hexdigest() == sha256, name
    loaded = data.load("fashion-mnist")
    assert loaded.train.shape == (60_000, 28, 28)
    assert loaded.test.shape == (10_000, 28, 28)
    assert loaded.train.dtype == np.uint8
    assert np.bincount(loaded.labels).tolist() == [6000] * 10
