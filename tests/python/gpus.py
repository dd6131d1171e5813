# SPDX-License-Identifier: MIT
"""What the tests of device="cuda" share: whether there is a GPU or an emulated one, and how near its numbers are."""

from typing import Any

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _core

GPU = len(fv.available_devices()) > 1
EMULATED = GPU and _core.device_properties("cuda")["name"] == "Emulated GPU"
needs_gpu = pytest.mark.skipif(not GPU, reason="no GPU can be used here, nor is one emulated")
needs_emulator = pytest.mark.skipif(not EMULATED, reason="failures are made by the emulator of FUSEDVAE_CUDA_EMULATED")
EPSILON = float(np.finfo(np.float32).eps)


def close(a: Any, b: Any, terms: int) -> None:
    """Sums of `terms` float32 products each, made in two orders.

    Each sum's error is at most terms * eps of its terms' sum (Higham 2002, section 3.1), here of order one or the
    result; through the few layers of these networks errors grow by less than the factor 8.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, rtol=8 * terms * EPSILON, atol=8 * terms * EPSILON)
