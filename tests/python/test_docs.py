# SPDX-License-Identifier: MIT
"""The pages of docs/ keep their word: their code runs and prints what they show, their links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import fusedvae as fv
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARKDOWN = sorted(DOCS.rglob("*.md"))
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
# Rounding differs among processors' instruction sets and libraries' versions, and training makes it grow.
RELATIVE, ABSOLUTE = 0.2, 3.0


def load(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


run = load("run")


def name_of(page):
    return str(page.relative_to(DOCS))


@pytest.mark.filterwarnings("default")  # of the libraries that pages use
@pytest.mark.parametrize("page", run.PAGES, ids=name_of)
def test_pages_print_what_they_show(page, tmp_path, monkeypatch):
    code = "".join(block[2] for block in run.BLOCK.finditer(page.read_text(encoding="utf-8")) if block[1] == "python")
    for library in sorted(set(re.findall(r"^ *(?:import|from) (\w+)", code, re.MULTILINE)) - {"fusedvae"}):
        pytest.importorskip(library)
    for name in re.findall(r"fv\.(plot|VAE|AnomalyDetector)\b|fusedvae\.pyod", code):
        pytest.importorskip({"plot": "matplotlib", "": "pyod"}.get(name, "sklearn"))
    monkeypatch.chdir(tmp_path)
    for block in run.run(page):
        if block.shown is None:
            continue
        where = f"{name_of(page)}, line {block.line}"
        shown, printed = block.shown[2], block.printed
        assert NUMBER.sub("N", shown).split() == NUMBER.sub("N", printed).split(), where
        values = [[float(number) for number in NUMBER.findall(text)] for text in (shown, printed)]
        assert values[1] == pytest.approx(values[0], rel=RELATIVE, abs=ABSOLUTE), where
    for picture in run.SHOWN.findall(page.read_text(encoding="utf-8")):
        assert (tmp_path / Path(picture).name).read_bytes().startswith(b"\x89PNG"), picture


def test_pages_run_code():
    assert {"generate", "anomalies", "dimensions", "pytorch", "scikit-learn", "pyod"} <= {
        page.stem for page in run.PAGES
    }


def test_a_page_is_renewed(tmp_path):
    page = tmp_path / "page.md"
    before = "```python\nx = 6\nprint(7 * x)\n```\n\n```text\n41\n```\n\n```sh\nfusedvae info no-such-file\n```\n"
    page.write_text(before)
    with pytest.raises(RuntimeError, match="status 1"):
        run.renew(page)
    assert page.read_text() == before
    page.write_text(before.replace("info no-such-file", "bench --quick --configs tiny --threads 1"))
    run.renew(page)
    assert "```text\n42\n```" in page.read_text()


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_links_lead_somewhere(page):
    prose = run.BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)#]+)\)", prose):
        assert link.startswith("https:") or (page.parent / link).exists(), link


def test_pictures_are_small_and_shown():
    shown = {(page.parent / link).resolve() for page in MARKDOWN for link in run.SHOWN.findall(page.read_text("utf-8"))}
    found = set(DOCS.rglob("*.png"))
    assert found == shown
    assert all(picture.stat().st_size < 100_000 for picture in found)


def test_the_reference_has_every_public_name():
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\.\. auto\w+:: (?:fusedvae\.)?(\w+)", reference, re.MULTILINE))
    public = {*fv.__all__, *fv._ON_DEMAND}
    assert public - described == set()


def test_c_names_are_the_headers():
    header = (DOCS.parent / "csrc/include/fusedvae/fusedvae.h").read_text(encoding="utf-8")
    named = re.findall(r"\b(?:fvae|FVAE)_\w+", "".join(page.read_text("utf-8") for page in MARKDOWN))
    assert named
    for name in named:
        assert re.search(rf"\b{name}\b", header), name


def test_numbers_explains_every_name():
    page = (DOCS / "numbers.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`(\w+)`", page))
    printed = {
        *fv.History([]),
        *fv.Losses._fields,
        "threshold",
        "abnormal",
        "mean",
        "min",
        "max",
        "state",
        "best_epoch",
    }
    printed |= set(fv.diagnostics.CollapseReport.__dataclass_fields__) - {"active"}
    from fusedvae.detector import SCORES

    assert printed | set(SCORES) <= explained


def test_sphinx_builds_without_a_warning(tmp_path):
    for library in ("sphinx", "myst_parser", "furo", "sphinxarg", "sklearn", "pyod"):
        pytest.importorskip(library)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "html/api.html").read_text(encoding="utf-8")
    assert 'id="fusedvae.Model.encode"' in reference
    assert "score_samples" in reference
