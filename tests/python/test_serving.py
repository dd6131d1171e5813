# SPDX-License-Identifier: MIT
"""encode_into, decode_into, reconstruct_into: the bits of the ordinary calls, into arrays that are already there."""

import threading
import tracemalloc

import fusedvae as fv
import numpy as np
import pytest


def floats(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, dtype=np.float32)


@pytest.mark.parametrize("rows", [1, 2, 9, 90])
def test_bits_are_those_of_the_ordinary_calls(make_model, likelihood, x, rows):
    model = make_model(likelihood=likelihood)
    mu, logvar = model.encode(x[:rows])
    out, log_out, mean = floats(rows, 3), floats(rows, 3), floats(rows, 12)
    assert model.encode_into(x[:rows], out) is out
    assert np.array_equal(out, mu)
    assert model.encode_into(x[:rows], out, logvar=log_out) is out
    assert np.array_equal(log_out, logvar)
    assert model.decode_into(mu, mean) is mean
    assert np.array_equal(mean, model.decode(mu))
    assert model.reconstruct_into(x[:rows], out=mean) is mean
    assert np.array_equal(mean, model.reconstruct(x[:rows]))


def test_rows_may_be_images_and_out_the_input_itself(make_model, x):
    model = make_model(input_shape=(3, 4))
    images, out = x.reshape(-1, 3, 4).copy(), floats(90, 12)
    expected = model.reconstruct(images)
    assert np.array_equal(model.reconstruct_into(images, out).reshape(-1, 3, 4), expected)
    assert np.array_equal(model.reconstruct_into(images, images), expected)


def test_read_only_rows_are_read(make_model, x):
    x.setflags(write=False)
    assert np.array_equal(make_model().reconstruct_into(x, floats(90, 12)), make_model().reconstruct(x))


REFUSED = {
    "a list": (lambda x: x.tolist(), TypeError, "must be a NumPy array, not list"),
    "doubles": (lambda x: x.astype(np.float64), TypeError, "has dtype float64; it must hold native float32"),
    "foreign byte order": (lambda x: x.astype(">f4"), TypeError, "must hold native float32"),
    "columns in Fortran's order": (np.asfortranarray, ValueError, "must be C-contiguous and"),
    "every other row": (lambda x: np.repeat(x, 2, axis=0)[::2], ValueError, "must be C-contiguous and"),
    "one row as a vector": (lambda x: x[0], ValueError, "has shape"),
    "a column too few": (lambda x: x[:, 1:].copy(), ValueError, "expected"),
    "another shape of as many": (lambda x: x.reshape(len(x), -1, 1), ValueError, "expected"),
    "no rows": (lambda x: x[:0], ValueError, "rows|empty"),
    "unaligned": (
        lambda x: np.frombuffer(b"\0" + x.tobytes(), dtype=np.float32, offset=1).reshape(x.shape),
        ValueError,
        "must be C-contiguous and aligned",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), REFUSED.values(), ids=list(REFUSED))
def test_nothing_is_converted(make_model, x, change, error, message):
    model = make_model()
    codes = model.encode(x)[0]
    for call in (
        lambda: model.encode_into(change(x), floats(90, 3)),
        lambda: model.encode_into(x, change(floats(90, 3))),
        lambda: model.encode_into(x, floats(90, 3), change(floats(90, 3))),
        lambda: model.decode_into(change(codes), floats(90, 12)),
        lambda: model.decode_into(codes, change(floats(90, 12))),
        lambda: model.reconstruct_into(change(x), floats(90, 12)),
        lambda: model.reconstruct_into(x, change(floats(90, 12))),
    ):
        with pytest.raises(error, match=message):
            call()


def test_what_else_is_refused(make_model, x):
    model = make_model()
    codes = model.encode(x)[0]
    with pytest.raises(ValueError, match="mu has 89 rows, x has 90"):
        model.encode_into(x, floats(89, 3))
    with pytest.raises(ValueError, match="logvar has 91 rows, x has 90"):
        model.encode_into(x, floats(90, 3), floats(91, 3))
    out = floats(90, 12)
    out.setflags(write=False)
    with pytest.raises(ValueError, match="out is read-only"):
        model.reconstruct_into(x, out)
    with pytest.raises(ValueError, match="mu and logvar share memory"):
        model.encode_into(x, codes, codes)
    both = floats(91, 12)
    both[:] = 0.5
    with pytest.raises(ValueError, match="x and out share memory"):
        model.reconstruct_into(both[:-1], both[1:])
    x[4, 5] = np.nan
    with pytest.raises(ValueError, match="x holds NaN in row 4, column 5"):
        model.reconstruct_into(x, floats(90, 12))
    codes[2, 1] = np.inf
    with pytest.raises(ValueError, match="row 2, column 1"):
        model.decode_into(codes, floats(90, 12))


def test_nothing_is_allocated(make_model, x):
    model = make_model(hidden=(64, 64))
    mu, logvar, out = floats(90, 3), floats(90, 3), floats(90, 12)

    def serve() -> None:
        model.encode_into(x, mu, logvar)
        model.decode_into(mu, out)
        model.reconstruct_into(x, out)

    serve()  # this thread's workspace
    tracemalloc.start()
    try:
        serve()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(100):
            serve()
        after, peak = tracemalloc.get_traced_memory()
        model.encode(x)
        ordinary = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert after - before < 200  # what the loop itself holds
    assert peak - before < 1000
    assert ordinary - before > 1000  # two arrays: the measure sees them


def test_many_threads_serve_one_model(make_model, x):
    model = make_model(hidden=(300, 300))  # wide enough for the interpreter's lock to be released
    expected = model.reconstruct(x)
    right = []

    def work() -> None:
        out = floats(90, 12)
        right.append(all(np.array_equal(model.reconstruct_into(x, out), expected) for _ in range(50)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 8


def test_serving_beside_a_training(make_model, x):
    """Readers neither disturb a training in another thread nor keep one from starting; each sees some whole step."""
    model, twin = make_model(hidden=(300, 300)), make_model(hidden=(300, 300))
    stop, served = threading.Event(), []

    def serve() -> None:
        out, one = floats(90, 12), floats(1, 12)
        while not stop.is_set():
            served.append(np.isfinite(model.reconstruct_into(x, out)).all())
            served.append(np.isfinite(model.reconstruct_into(x[:1], one)).all())

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            fv.Trainer(model, seed=1).fit(x, epochs=2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for _ in range(3):
        fv.Trainer(twin, seed=1).fit(x, epochs=2)
    assert served
    assert all(served)
    for name, values in twin.parameters().items():
        assert np.array_equal(model.parameters()[name], values)


def test_callbacks_may_serve(make_model, x):
    model = make_model()
    seen = []

    class Serve(fv.Callback):
        def on_epoch_end(self, *_: object) -> None:
            seen.append(np.array_equal(model.reconstruct_into(x, floats(90, 12)), model.reconstruct(x)))

    fv.Trainer(model).fit(x, epochs=2, callbacks=[Serve()])
    assert seen == [True, True]
