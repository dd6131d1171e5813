# SPDX-License-Identifier: MIT
"""Sphinx: `python -m sphinx -W docs build/docs` builds these pages."""

import inspect

import fusedvae
from sphinx.application import Sphinx

project = "fusedvae"
author = "the fusedvae developers"
version = release = fusedvae.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxarg.ext"]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = "fusedvae"
html_copy_source = False

myst_heading_anchors = 3

# Names between single backticks in docstrings link to what they name.
default_role = "py:obj"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 100
# Large, and no more than named by what is described.
autodoc_mock_imports = ["torch", "onnx"]


def escape_stars(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Shapes such as (n, *input_shape) would begin emphasis in reStructuredText."""
    in_example = False
    for i, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (
            in_example and bool(line.strip())
        )
        if not in_example:
            lines[i] = line.replace("*", r"\*")


def skip_foreign(
    app: object, what: str, name: str, obj: object, skip: bool, options: object
) -> bool:
    """What estimators inherit from other libraries is described there."""
    return skip or (
        inspect.isroutine(obj)
        and not (getattr(obj, "__module__", None) or "").startswith("fusedvae")
    )


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", escape_stars)
    app.connect("autodoc-skip-member", skip_foreign)
