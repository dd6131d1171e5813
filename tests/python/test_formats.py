# SPDX-License-Identifier: MIT
"""Files of every format that was ever released are read, with the numbers they had when they were written."""

import json
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest

FILES = Path(__file__).parents[1] / "files"
FORMATS = sorted(int(path.stem.partition("-")[2]) for path in FILES.glob("format-*.json"))
# Another instruction set adds the same float32 products in another order: some units of 2^-24 for sums of 8 terms,
# grown by exp and by the ELBO's cancellation of terms of about 10 nats.
TOLERANCE = 1e-5


@pytest.fixture(params=FORMATS)
def written(request):
    """The format's number, and what its files gave when they were written: rows (64, 3), results of the first five."""
    expected = json.loads((FILES / f"format-{request.param}.json").read_text())
    expected["rows"] = np.array(expected["rows"], dtype=np.float64)
    return request.param, expected


def test_there_are_files_of_the_present_format():
    assert FORMATS == [1]


def test_models_give_the_numbers_they_gave(written):
    number, expected = written
    model = fv.load(FILES / f"format-{number}-model.safetensors")
    x = expected["rows"][:5]
    np.testing.assert_allclose(model.encode(x)[0], expected["mu"], rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(model.reconstruct(x), expected["mean"], rtol=TOLERANCE)
    np.testing.assert_allclose(model.score(x), expected["score"], rtol=TOLERANCE)
    assert model.detector.threshold == -20.0
    assert [column.name for column in model.config.columns] == ["amount", "country", "hour"]


def test_checkpoints_go_on_as_they_did(written):
    number, expected = written
    trainer = fv.Trainer.resume(FILES / f"format-{number}-run.ckpt")
    np.testing.assert_array_equal(trainer.history["loss"], expected["loss"])
    history = trainer.fit(expected["rows"], epochs=1, validation_data=expected["rows"][:10])
    # Four steps of Adam, whose first ones turn rounding errors of tiny gradients into larger ones.
    np.testing.assert_allclose(history["loss"][-1], expected["next_loss"], rtol=1e-4)
