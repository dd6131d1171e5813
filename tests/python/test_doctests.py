# SPDX-License-Identifier: MIT
"""Every example in a docstring runs and gives what it says."""

import doctest
import importlib
import pkgutil

import fusedvae as fv
import pytest

MODULES = sorted(
    module.name for module in pkgutil.iter_modules(fv.__path__) if module.name not in ("_core", "__main__")
)

# What a module's import or its examples need beyond NumPy.
NEEDS = {
    "_onnx_graph": ["onnx"],
    "onnx": ["onnx"],
    "torch": ["torch"],
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str):
    for library in NEEDS.get(name, []):
        pytest.importorskip(library)
    before = fv.get_num_threads()
    try:
        results = doctest.testmod(importlib.import_module(f"fusedvae.{name}"), optionflags=doctest.ELLIPSIS)
    finally:
        fv.set_num_threads(before)
    assert results.failed == 0


def test_examples_of_the_package_itself():
    before = fv.get_num_threads()
    try:
        results = doctest.testmod(fv)
    finally:
        fv.set_num_threads(before)
    assert results.failed == 0
    assert results.attempted > 0
