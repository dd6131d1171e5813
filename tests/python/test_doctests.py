# SPDX-License-Identifier: MIT
"""Every example in a docstring runs and gives what it says."""

import doctest
import importlib
import pkgutil

import fusedvae as fv
import pytest

MODULES = sorted(
    module.name.removeprefix("fusedvae.")
    for module in pkgutil.walk_packages(fv.__path__, "fusedvae.")
    if module.name not in ("fusedvae._core", "fusedvae.__main__")
)

# What a module's import or its examples need beyond NumPy.
NEEDS = {
    "_estimator": ["sklearn"],
    "anomaly": ["sklearn"],
    "data": ["sklearn"],
    "estimators": ["sklearn", "pandas"],
    "mixture": ["sklearn"],
    "_onnx_graph": ["onnx"],
    "onnx": ["onnx"],
    "plot": ["matplotlib"],
    "pyod": ["sklearn", "pyod"],
    "report": ["matplotlib", "jinja2"],
    "sampler": ["sklearn"],
    "tables": ["sklearn"],
    "torch": ["torch"],
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str):
    for library in NEEDS.get(name.partition(".")[0], []):
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
