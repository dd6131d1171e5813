# SPDX-License-Identifier: MIT
"""The package as a whole: what importing costs, that the stubs tell the truth, threads, backends, fork."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _core


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a fresh interpreter."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def test_import_needs_numpy_alone():
    done = run(
        """
        import numpy, sys
        before = set(sys.modules)
        import fusedvae
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(new - set(sys.stdlib_module_names)))
        print(len(new & set(sys.stdlib_module_names)))
        """
    )
    third_party, library = done.stdout.splitlines()
    assert third_party == "fusedvae numpy"  # numpy.typing
    # 4 beside numpy 2.4, 11 beside 2.2, which leaves `inspect` and its own to dataclasses; each costs about 1 ms
    assert int(library) <= 12


def test_import_leaves_argument_parsing_plots_and_bars_alone():
    done = run(
        "import fusedvae, sys; print([m for m in ('argparse', 'tqdm', 'matplotlib', 'difflib') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]"


def test_version_is_the_packages():
    assert fv.__version__ == _core.version()
    try:
        assert fv.__version__ == importlib.metadata.version("fusedvae")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("fusedvae runs from its source folder")


def test_everything_public_is_documented():
    assert sorted(set(fv.__all__)) == sorted(fv.__all__)
    for name in fv.__all__:
        assert getattr(fv, name).__doc__, name


# ---- stubs


def names_of_docstring(text: str) -> list[str]:
    """Argument names of pybind11's first docstring line: name(first: type[a, b], second: type = value) -> type."""
    signature = text.splitlines()[0].partition("(")[2].rpartition(") -> ")[0]
    depth, arguments = 0, [""]
    for letter in signature:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += letter
    return [argument.partition(":")[0].strip() for argument in arguments if argument]


def stub_signatures() -> dict[str, list[str] | None]:
    """Names in _core.pyi: functions with their argument names, attributes and classes with None."""
    tree = ast.parse((Path(fv.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))
    found: dict[str, list[str] | None] = {}

    def visit(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = None
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                found[prefix + node.name] = None if "property" in decorators else [arg.arg for arg in node.args.args]
            elif isinstance(node, ast.AnnAssign):
                found[prefix + ast.unparse(node.target)] = None

    visit(tree.body, "")
    return found


def module_signatures() -> dict[str, list[str] | None]:
    """The same of the compiled module."""
    found: dict[str, list[str] | None] = {}
    for name, value in vars(_core).items():
        if name.startswith("_"):
            continue
        if not isinstance(value, type):
            found[name] = names_of_docstring(value.__doc__)
            continue
        found[name] = None
        if issubclass(value, Exception):
            continue
        for member in vars(value):
            if member == "__init__" or not member.startswith("_"):
                function = getattr(value, member)
                found[f"{name}.{member}"] = names_of_docstring(function.__doc__) if callable(function) else None
    return found


def test_stubs_tell_the_truth():
    stubs, module = stub_signatures(), module_signatures()
    assert set(stubs) == set(module)
    for name, arguments in module.items():
        assert stubs[name] == arguments, name


# ---- threads, backends, fork


def test_threads():
    before = fv.get_num_threads()
    assert before >= 1
    try:
        fv.set_num_threads(3)
        assert fv.get_num_threads() == 3
    finally:
        fv.set_num_threads(before)
    for wrong in (0, -1, 10**6):
        with pytest.raises(ValueError, match="threads"):
            fv.set_num_threads(wrong)
    with pytest.raises(TypeError, match="threads"):
        fv.set_num_threads(1.5)


def test_threads_follow_the_environment():
    done = run("import fusedvae; print(fusedvae.get_num_threads())", OMP_NUM_THREADS="1")
    assert done.stdout.strip() == "1"


def test_backends():
    assert fv.backend() in fv.available_backends()
    assert "scalar" in fv.available_backends()


@pytest.mark.parametrize("name", fv.available_backends())
def test_backends_can_be_forced_and_agree(name: str):
    done = run(
        """
        import numpy as np, fusedvae as fv
        print(fv.backend())
        model = fv.Model(fv.Config(input_shape=20, hidden=(30,), latent=3))
        x = np.random.default_rng(0).random((64, 20), dtype=np.float32)
        print(fv.Trainer(model, batch_size=32).fit(x, epochs=5)["loss"][-1])
        """,
        FUSEDVAE_BACKEND=name,
    )
    backend, loss = done.stdout.split()
    assert backend == name
    model = fv.Model(fv.Config(input_shape=20, hidden=(30,), latent=3))
    x = np.random.default_rng(0).random((64, 20), dtype=np.float32)
    assert float(loss) == pytest.approx(fv.Trainer(model, batch_size=32).fit(x, epochs=5)["loss"][-1], rel=1e-4)


def test_an_impossible_backend_is_an_error():
    for use in ("fv.backend()", "fv.Model(fv.Config())", "fv.kernels.store([[1.0]], [[1.0]])"):
        done = run(f"import fusedvae as fv; {use}", FUSEDVAE_BACKEND="sse9")
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("ValueError: FUSEDVAE_BACKEND: backend 'sse9' cannot run here; choose one of: ")
        assert "scalar" in last


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_models_work_after_fork():
    done = run(
        """
        import os, sys, warnings
        import numpy as np, fusedvae as fv
        warnings.simplefilter("ignore")  # Python warns of forks beside threads
        fv.set_num_threads(2)
        x = np.random.default_rng(0).random((400, 50), dtype=np.float32)
        model = fv.Model(fv.Config(input_shape=50, hidden=(200,), latent=3))
        trainer = fv.Trainer(model, batch_size=100)
        trainer.fit(x, epochs=1)
        scores = model.elbo(x)
        child = os.fork()
        if child == 0:
            same = np.array_equal(model.elbo(x), scores)
            trainer.fit(x, epochs=1)
            os._exit(0 if same and trainer.epoch == 2 else 1)
        trainer.fit(x, epochs=1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), trainer.epoch)
        """
    )
    assert done.stdout.split() == ["0", "2"], done.stderr


def test_measured_peak_is_a_rate():
    assert 0.1 < _core.measure_peak(1, 0.05) < 10_000


def test_other_build_systems_find_the_engine(tmp_path):
    if not (Path(fv.__file__).parent / "include").is_dir():
        pytest.skip("fusedvae runs from its source folder")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    flags = {}
    for flag in ("--includes", "--libs", "--cmake-dir"):
        command = [sys.executable, "-m", "fusedvae", flag]
        flags[flag] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (Path(flags["--cmake-dir"].strip()) / "fusedvaeConfig.cmake").is_file()
    source = tmp_path / "version.c"
    source.write_text("#include <fusedvae/fusedvae.h>\n#include <stdio.h>\nint main(void) { puts(fvae_version()); }\n")
    program = tmp_path / "version"
    command = [compiler, source, *flags["--includes"].split(), *flags["--libs"].split(), "-o", program]
    subprocess.run(command, check=True)
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip() == fv.__version__
