# SPDX-License-Identifier: MIT
"""Counts instructions: of one training step, and of the AVX-512 micro-kernels' inner loops. No clock, so no noise.

    python bench/instructions.py --json bench/results/instructions.json     # renew the record
    python bench/instructions.py --check bench/results/instructions.json    # fails above the record by more than 3 %

A step runs on one thread under valgrind's callgrind; the count is the difference between two steps and one, so that
what comes before cancels. Valgrind knows no AVX-512: there the loop of each micro-kernel for the 8 x 48 tile is read
from the disassembly. Counts depend on the compiler, which is therefore one version, GCC 12.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

from build_native import add_option, build, compiler_of
from problems import PROBLEMS, Problem
from report import machine, table, write

COMPILER = "g++-12"
MARGIN = 0.03
# Valgrind computes each fused multiply-add by software: a smaller batch of mnist's has the same proportions.
COUNTED = [PROBLEMS["tabular"], PROBLEMS["iwae"], replace(PROBLEMS["mnist"], name="mnist, batch 16", batch=16)]
BACKENDS = ("scalar", "avx2")

TILE = re.compile(r"\bproduct<.*\b8, 3\b.*?>")  # rows, registers: the tile that most of the work runs in
FMAS_PER_K = 24
STACK = re.compile(r"\(%r[sb]p")


def run(*command: object) -> str:
    """What a command says, on both streams."""
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")
    return done.stdout


def step_instructions(program: Path, problem: Problem, backend: str) -> int:
    layers = "-".join(map(str, (problem.width, *problem.hidden, problem.latent)))
    counts = []
    for steps in (1, 2):
        valgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
        said = run(*valgrind, program, layers, problem.likelihood, problem.batch, backend, steps)
        counts.append(int(re.search(r"Collected : (\d+)", said)[1]))
    return counts[1] - counts[0]


def kind(instruction: str) -> str:
    name = instruction.split()[0]
    if name.startswith(("vfmadd", "vfnmadd", "vdpbf16")):
        return "multiply-adds"
    if name.startswith("vbroadcast"):
        return "broadcasts"
    return "loads" if name.startswith("vmov") else "others"


def innermost_loop(code: list[tuple[int, str]]) -> list[str]:
    """The instructions of the loop with the most multiply-adds that holds no other loop; code: (address, text)."""
    at = {address: i for i, (address, _) in enumerate(code)}
    loops = []
    for i, (address, text) in enumerate(code):
        jump = re.match(r"j\w+ +([0-9a-f]+)", text)
        if jump and int(jump[1], 16) <= address and int(jump[1], 16) in at:
            loops.append((at[int(jump[1], 16)], i))
    inner = [(a, b) for a, b in loops if not any(a <= c and d < b for c, d in loops)]
    bodies = [[text for _, text in code[first : last + 1]] for first, last in inner]
    return max(bodies, key=lambda body: sum(kind(text) == "multiply-adds" for text in body))


def kernel_loops(build_folder: Path) -> dict[str, dict[str, float]]:
    """{backend and micro-kernel: instructions by kind, for each k of the inner dimension}."""
    loops = {}
    for backend in ("avx512", "avx512_bf16"):
        (objects,) = build_folder.rglob(f"isa_{backend}.cpp.o")
        listing = run("objdump", "--disassemble", "--demangle", "--no-show-raw-insn", objects)
        loops.update({f"{backend} {name}": loop for name, loop in loops_of(listing).items()})
    return loops


def loops_of(listing: str) -> dict[str, dict[str, float]]:
    """{micro-kernel: its counts} in a disassembly."""
    loops = {}
    for function in listing.split("\n\n"):
        head, *lines = function.split("\n")
        tile = TILE.search(head.replace("fusedvae::(anonymous namespace)::", ""))
        if not tile:
            continue
        code = [(int(a, 16), text) for a, text in re.findall(r"^ +([0-9a-f]+):\t(.*?) *$", "\n".join(lines), re.M)]
        body = innermost_loop(code)
        counts = Counter({"multiply-adds": 0, "loads": 0, "broadcasts": 0, "others": 0})
        counts.update(map(kind, body))
        per_k = FMAS_PER_K / counts["multiply-adds"]  # the loop is unrolled
        loops[tile[0]] = {name: count * per_k for name, count in counts.items()}
        loops[tile[0]]["all"] = len(body) * per_k
        loops[tile[0]]["on the stack"] = sum(STACK.search(text) is not None for text in body) * per_k
    if not loops:
        raise SystemExit(f"no micro-kernel of that tile in the objects; has its name changed? (TILE in {__file__})")
    return loops


def compare(counted: dict, recorded: dict) -> list[str]:
    """What is missing, or above its record by more than the margin."""
    found = []
    for group, rows in recorded.items():
        for row, counts in rows.items():
            for name, before in counts.items():
                now = counted[group].get(row, {}).get(name)
                if now is None or now > before * (1 + MARGIN):
                    found.append(f"{row}, {name}: {before:,} recorded, {now if now is None else f'{now:,}'} now")
                elif now < before * (1 - MARGIN):
                    print(f"fewer than recorded, so renew the record: {row}, {name}: {before:,} before, {now:,} now")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--json", metavar="FILE", help="write the record there")
    action.add_argument("--check", metavar="FILE", help="compare with the record there")
    add_option(parser)
    options = parser.parse_args()

    programs = build(options.build, "run_steps", compiler=COMPILER)
    steps = {
        problem.name: {name: step_instructions(programs / "run_steps", problem, name) for name in BACKENDS}
        for problem in COUNTED
    }
    counted = {"steps": steps, "loops": kernel_loops(programs.parent.parent)}

    print("instructions of one step, millions")
    cells = [[name, *(f"{count / 1e6:.3f}" for count in counts.values())] for name, counts in steps.items()]
    print(table(["", *BACKENDS], cells))
    print("\ninstructions of the AVX-512 micro-kernels' loops, for each k (float or word) of the 8 x 48 tile")
    loops = counted["loops"]
    cells = [[name, *(f"{count:g}" for count in counts.values())] for name, counts in loops.items()]
    print(table(["", *next(iter(loops.values()))], cells))

    if options.json:
        about = {"benchmark": "instructions", "machine": machine(), "compiler": compiler_of(programs)}
        about["valgrind"] = run("valgrind", "--version").strip()
        write(options.json, {**about, "counts": counted})
    if options.check:
        above = compare(counted, json.loads(Path(options.check).read_text())["counts"])
        if above:
            raise SystemExit("\n".join([f"more than {MARGIN:.0%} above {options.check}:", *above]))
        print(f"\nno count is more than {MARGIN:.0%} above {options.check}")


if __name__ == "__main__":
    main()
