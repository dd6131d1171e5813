# SPDX-License-Identifier: MIT
"""README.md keeps its word: its Python runs, its commands parse, its C is the header's, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from fusedvae import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no {language} block"
    return found


def test_python_runs(tmp_path, monkeypatch, capsys):
    """All blocks in order, in one namespace, as a reader would type them."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    train, held_out, evaluated = map(float, capsys.readouterr().out.split())
    assert 20 < train < 35
    assert 20 < held_out < 35
    assert evaluated == pytest.approx(held_out, abs=1)
    assert names["images"].shape == (64, 8, 8)
    assert len(names["trainer"].history["loss"]) == 22
    assert names["mu"].shape == (180, 16)
    assert names["between"].shape == (8, 8, 8)
    assert np.mean(names["scores"]) > np.mean(names["bounds"])
    assert {path.name for path in tmp_path.iterdir()} == {"digits.safetensors", "run.ckpt"}


def test_commands_parse():
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("fusedvae ")]
    assert len(lines) >= 4
    for line in lines:
        assert cli._parser().parse_args(shlex.split(line, comments=True)[1:]).run, line


def test_install_commands_name_extras_that_exist():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r'(?:"\.|fusedvae)\[([\w,-]+)\]"', README)
    named = [extra for names in lists for extra in names.split(",")]
    assert {"demo", "test", "test-torch", "data"} <= set(named)
    for extra in named:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_c_names_are_the_headers():
    header = (ROOT / "csrc/include/fusedvae/fusedvae.h").read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:fvae|FVAE)_\w+", "".join(blocks("c"))):
        assert re.search(rf"\b{name}\b", header), name


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
