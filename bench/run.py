# SPDX-License-Identifier: MIT
"""Times one training step (forward, ELBO, backward, Adam) of fusedvae and its peers, interleaved in one run.

    python bench/run.py --quick                                        a look within a minute
    python bench/run.py --json bench/results/step.json                 the eight networks
    python bench/run.py --sweep batch --json bench/results/batch.json  one network, batches of 1 to 16384
    python bench/run.py --threads 1,2 --arms fusedvae                  what a second thread gains

Each arm is a process of its own and stands still while another is timed. In every round the arms take their turns,
fusedvae once more at the end as a control of drift, and then the arithmetic peak and the memory's bandwidth are
measured. Before that, each arm's losses over the first Adam steps must equal a reference's.
"""

from __future__ import annotations

import argparse
import math
import os

from arms import ARMS, installed
from measure import Plan, best_peer, measure
from problems import PROBLEMS, SWEEPS
from report import machine, quartiles, table, write

TIMED = ("fusedvae", "torch", "torch.compile", "jax", "fusedvae.bf16", "torch.bf16")
QUICK = ("tabular", "mnist")


def cell(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def rows(record: dict, many: bool) -> list[list[str]]:
    lines = []
    for row in record["rows"]:
        threads = f", threads {row['threads']}" if many else ""
        name = f"{record['config']:10s} {row['title']}{threads}{', again' if row['again'] else ''}"
        rates = [cell(row["gflops"], ".3g"), cell(row["percent_of_peak"], ".0f"), cell(row["percent_of_bound"], ".0f")]
        lines.append([name, *quartiles(row["ms"], ".4g"), *rates, cell(row["times_fusedvae"], ".2f")])
    return lines


def title(record: dict) -> str:
    """What the machine could do, above a network's table."""
    work = f"{record['flops'] / 1e9:.4g} Gflop a step, {record['state_bytes'] / 1e6:.3g} MB of weights and moments"
    lines = [f"{record['config']}: {work}"]
    for limit in record["limits"]:
        peaks = ", ".join(f"{name} {peak['gflops']:.0f} GFLOP/s" for name, peak in limit["peaks"].items())
        rates = ", ".join(f"{loop} {rate['median']:.0f} GB/s" for loop, rate in limit["bandwidth"].items())
        bounds = ", ".join(
            f"{name} {b['arithmetic_ms']:.3g} + {b['memory_ms']:.3g} ms" for name, b in limit["bounds"].items()
        )
        lines.append(f"  threads {limit['threads']}: peak {peaks}; memory {rates}; bound {bounds}")
    return "\n".join(lines)


def gains(records: list[dict], threads: int) -> list[str]:
    """fusedvae beside the best peer and beside PyTorch's best, each network and the geometric mean."""
    lines = []
    for precision in ("float32", "bfloat16"):
        for only, name in (("", "the best peer"), ("torch", "PyTorch's best")):
            best = {record["config"]: best_peer(record, precision, threads, only) for record in records}
            times = {c: row["times_fusedvae"] for c, row in best.items() if row and row["times_fusedvae"]}
            if times:
                mean = math.exp(sum(map(math.log, times.values())) / len(times))
                each = ", ".join(f"{config} {gain:.2f}" for config, gain in times.items())
                lines.append(f"{precision}, threads {threads}: {name} takes times fusedvae's: {each}; mean {mean:.2f}")
    return lines


def scaling(record: dict) -> str:
    """fusedvae's time on fewer threads over its time on more, for each step of the counts."""
    times = {
        (row["precision"], row["threads"]): row["ms"]["median"]
        for row in record["rows"]
        if row["arm"].startswith("fusedvae") and not row["again"]
    }
    steps = []
    for (precision, few), ms in times.items():
        more = [n for p, n in times if p == precision and n > few]
        if more:
            steps.append(f"{precision} {few} to {min(more)} threads x {ms / times[precision, min(more)]:.2f}")
    return f"{record['config']:10s} {', '.join(steps)}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--configs", default=",".join(PROBLEMS), help="comma-separated, of %(default)s")
    what.add_argument("--sweep", choices=SWEEPS, help="another network for each batch or width instead")
    parser.add_argument("--arms", default=",".join(TIMED), help="comma-separated, of %(default)s")
    parser.add_argument("--seconds", type=float, default=4, help="timed, for each arm and network (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="turns that each arm takes in them (%(default)s)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--threads", default=str(cores), help="for every arm; several counts take turns (%(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)} alone, 3 rounds of 0.2 seconds")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    options = parser.parse_args()
    if options.quick:
        options.configs, options.seconds, options.rounds = ",".join(QUICK), 0.6, 3
    options.problems = SWEEPS[options.sweep] if options.sweep else []
    for name in [] if options.sweep else options.configs.split(","):
        if name not in PROBLEMS:
            parser.error(f"no network {name!r}; known are {', '.join(PROBLEMS)}")
        options.problems.append(PROBLEMS[name])
    options.arms = options.arms.split(",")
    for arm in options.arms:
        if arm not in TIMED:
            parser.error(f"no arm {arm!r}; known are {', '.join(TIMED)}")
    if not installed("fusedvae"):
        parser.error("fusedvae is not installed in this Python; run `pip install .` first")
    options.threads = sorted({int(n) for n in options.threads.split(",")})
    return options


def main() -> None:
    options = parse()
    arms = ["fusedvae", *(arm for arm in options.arms if arm != "fusedvae")]
    left_out = {arm: "not installed" for arm in arms if not installed(arm)}
    plan = Plan([arm for arm in arms if arm not in left_out], options.threads, options.seconds, options.rounds)

    where, records = machine(), []
    print(f"{where['processor']}; threads: {' and '.join(map(str, options.threads))}")
    headers = ["network    arm", "ms per step", "quartiles", "GFLOP/s", "% of peak", "% of bound", "x fusedvae's"]
    for problem in options.problems:
        record = measure(problem, plan, left_out)
        print(f"\n{title(record)}\n{table(headers, rows(record, len(options.threads) > 1))}", flush=True)
        records.append(record)
    print()
    for arm, reason in left_out.items():
        print(f"left out: {ARMS[arm].title} ({reason})")
    if compared := gains(records, options.threads[-1]):
        print(*compared, sep="\n")
    if len(options.threads) > 1:
        print("\nWhat more threads gain:", *map(scaling, records), sep="\n")
    if options.json:
        kind = "step" if options.sweep is None else f"sweep of {options.sweep}"
        record = {"benchmark": kind, "machine": where, "threads": options.threads, "left_out": left_out}
        write(options.json, {**record, "configs": records})


if __name__ == "__main__":
    main()
