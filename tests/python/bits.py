# SPDX-License-Identifier: MIT
"""What "the same result" means in the tests: equal to the bit."""

from collections.abc import Mapping

import numpy as np


def same_bits(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    """Whether parameters, or histories, have the same names in the same order and the same bits."""
    return list(a) == list(b) and all(a[name].tobytes() == b[name].tobytes() for name in a)
