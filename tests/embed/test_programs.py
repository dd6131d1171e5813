# SPDX-License-Identifier: MIT
"""Programs without Python, built against the installed package, give Python's results to the bit."""

import os
import shutil
import subprocess
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest

BUILD = os.environ.get("FUSEDVAE_EMBED_BUILD")
pytestmark = pytest.mark.skipif(not BUILD, reason="FUSEDVAE_EMBED_BUILD names no build of tests/embed")


def run(program, *arguments, given=None, check=True):
    command = [Path(BUILD or "") / program, *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=check)


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    """A detector of a table with numbers, a category and a missing value, its file, and the table as CSV."""
    rng = np.random.default_rng(0)
    n = 400
    columns = (
        fv.Column("amount", shift=50.0, scale=20.0, fill=50.0),
        fv.Column("country", categories=("at", "be", "nl"), fill=2),
        fv.Column("hour", shift=12.0, scale=5.0),
    )
    x = np.column_stack([rng.normal(50, 20, n), rng.integers(0, 3, n), rng.normal(12, 5, n)])
    x[3, 0] = x[4, 1] = np.nan
    config = fv.Config(input_shape=3, hidden=(16,), latent=2, likelihood=fv.Gaussian("feature"), columns=columns)
    model = fv.Model(config, seed=0)
    fv.Trainer(model, fv.Adam(1e-2), batch_size=64).fit(x, epochs=5)
    path = tmp_path_factory.mktemp("filter") / "model.safetensors"

    def field(value, column):
        if np.isnan(value):
            return ""
        return repr(float(value)) if column.categories is None else column.categories[int(value)]

    lines = [",".join(field(v, c) for v, c in zip(row, columns, strict=True)) + "\n" for row in x]
    return model, path, x, "".join(lines)


@pytest.mark.parametrize("program", ["filter", "filter_static"])
@pytest.mark.parametrize("score", ["elbo", "log_likelihood", "reconstruction", "kl", "mahalanobis"])
def test_filter_gives_the_scores_and_anomalies_of_python(filtered, score, program):
    if not (Path(BUILD or "") / program).exists():
        pytest.skip("this package holds no static library")
    model, path, x, lines = filtered
    detector = fv.Detector.of_codes(model.encode(x)[0]) if score == "mahalanobis" else fv.Detector(score, samples=8)
    threshold = float(np.quantile(model.score(x, detector), 0.1))
    model.detector = fv.Detector(
        score, 8, threshold=threshold, latent_mean=detector.latent_mean, latent_precision=detector.latent_precision
    )
    model.save(path)
    printed = [line.split(",") for line in run(program, path, given=lines).stdout.splitlines()]
    np.testing.assert_array_equal([float(value) for value, _ in printed], model.score(x))
    np.testing.assert_array_equal([int(flag) for _, flag in printed], model.score(x) < threshold)
    assert sum(int(flag) for _, flag in printed) == len(x) // 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1,at,2\n1,xx,2\n", "line 2: a category is not one that the model knows"),
        ("1,at\n", "line 1: it has fewer fields"),
        ("1,at,2,3\n", "line 1: it has more fields"),
        ("1,at,two\n", "line 1: a field is not a number"),
        ("1,at,\n", "line 1: x misses a value in row 0, column 2 (hour)"),
    ],
)
def test_filter_says_what_is_wrong_with_a_line(filtered, given, message):
    model, path, _, _ = filtered
    model.detector = fv.Detector("kl", threshold=0.0)
    model.save(path)
    result = run("filter", path, given=given, check=False)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_processor_without_the_backend_is_told_so(filtered):
    emulator, program = shutil.which("qemu-x86_64"), Path(BUILD or "") / "filter_static"
    if not emulator or not program.exists():
        pytest.skip("qemu-user is not there, or this package holds no static library")
    model, path, _, lines = filtered
    model.detector = fv.Detector("kl", threshold=0.0)
    model.save(path)
    # A processor of 2008, which has neither AVX nor FMA.
    command = [emulator, "-cpu", "Nehalem", program, path]
    result = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    if result.returncode == 0:  # the scalar backend, in other bits
        first = result.stdout.splitlines()[0].split(",")[0]
        assert float(first) == pytest.approx(model.score(filtered[2][:1])[0], rel=1e-4)
    else:
        assert 'this library was built with -DFUSEDVAE_BACKENDS="avx2", none of which' in result.stderr


def test_images_are_those_of_the_sampler(tmp_path):
    model = fv.Model(fv.Config(input_shape=(5, 7), hidden=(16,), latent=3), seed=2)
    model.save(tmp_path / "m.safetensors")
    run("images", tmp_path / "m.safetensors", tmp_path, 4, 9)
    for i, expected in enumerate(fv.Sampler(model, seed=9).sample(4)):
        header, size, depth, pixels = (tmp_path / f"{i}.pgm").read_bytes().split(b"\n", 3)
        assert (header, size, depth) == (b"P5", b"7 5", b"255")
        rounded = np.floor(np.float32(255) * expected + np.float32(0.5)).astype(np.uint8)
        np.testing.assert_array_equal(np.frombuffer(pixels, np.uint8).reshape(5, 7), rounded)


def test_train_ends_with_the_parameters_of_python(tmp_path):
    x = np.random.default_rng(0).standard_normal((1000, 6)).astype(np.float32)
    x.tofile(tmp_path / "rows.f32")
    run("train", tmp_path / "rows.f32", 6, 3, 5, tmp_path / "m.safetensors")
    config = fv.Config(input_shape=6, hidden=(32,), latent=4, likelihood=fv.Gaussian("feature"))
    trainer = fv.Trainer(fv.Model(config, seed=5), seed=5)
    trainer.fit(np.memmap(tmp_path / "rows.f32", np.float32, "r", shape=x.shape), epochs=3)
    trained = fv.load(tmp_path / "m.safetensors").parameters()
    for name, values in trainer.model.parameters().items():
        np.testing.assert_array_equal(trained[name], values)


def test_a_callback_decodes_without_allocation_or_lock(tmp_path):
    fv.Model(fv.Config(input_shape=256, hidden=(64,), latent=4), seed=1).save(tmp_path / "m.safetensors")
    assert "100 callbacks, no allocation, no lock" in run("realtime", tmp_path / "m.safetensors", 100).stdout


def test_rust_reads_the_same_scores(tmp_path):
    cargo, library = shutil.which("cargo"), os.environ.get("FUSEDVAE_LIB")
    if not cargo or not library:
        pytest.skip("cargo is not there, or FUSEDVAE_LIB does not name the folder of libfusedvae.so")
    source = Path(__file__).parent / "rust"
    build = [cargo, "build", "--quiet", "--offline", "--manifest-path", source / "Cargo.toml"]
    subprocess.run(build, env={**os.environ, "CARGO_TARGET_DIR": str(tmp_path)}, check=True)
    x = np.random.default_rng(0).random((50, 6), np.float32)
    model = fv.Model(fv.Config(input_shape=6, hidden=(16,), latent=2), seed=1)
    model.save(tmp_path / "m.safetensors")
    score = tmp_path / "debug" / "score"
    printed = subprocess.run([score, tmp_path / "m.safetensors"], input=x.tobytes(), capture_output=True, check=True)
    np.testing.assert_array_equal(list(map(float, printed.stdout.split())), model.elbo(x, samples=10))
    table = fv.Model(fv.Config(input_shape=2, latent=2, columns=(fv.Column(), fv.Column(categories=("a", "b", "c")))))
    table.save(tmp_path / "table.safetensors")
    rows = np.column_stack([x[:, 0], np.arange(50) % 3]).astype(np.float32)
    command = [score, tmp_path / "table.safetensors"]
    printed = subprocess.run(command, input=rows.tobytes(), capture_output=True, check=True)
    np.testing.assert_array_equal(list(map(float, printed.stdout.split())), table.elbo(rows, samples=10))
    refused = subprocess.run([score, tmp_path / "none"], input=b"", capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"none" in refused.stderr
