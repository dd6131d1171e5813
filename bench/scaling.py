# SPDX-License-Identifier: MIT
"""What 16 and 64 cores would do: run.py's times on one thread, cut as the engine would cut them, plus counted costs.

    python bench/run.py --threads 1,2 --arms fusedvae,fusedvae.bf16 --json bench/results/threads.json
    python bench/scaling.py bench/results/threads.json --json bench/results/scaling.json

A model, not a measurement, except for its inputs. Those are each network's time on one thread, the memory's bandwidth
(both from the record), and the cost of a barrier, of a region and of a byte that another core wrote (bench/threads.cpp,
built and run here). Its prediction for two threads stands beside what two threads took. bench/README.md derives it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from problems import PROBLEMS, Problem
from report import machine, table, write

ROOT = Path(__file__).parent.parent
GROUP, TALLEST = 16, 8  # csrc/layer/gemm.h: columns that are never divided, rows of a tile
WORTH, ELEMENT = 4e5, 500  # useful_threads: a thread's least work; what an output element is worth
SPLIT_FLOATS, SPLIT_ROWS, MOST_SPLITS = 1 << 16, 128, 8  # splits_of
CORES = (2, 16, 64)


@dataclass(frozen=True)
class Costs:
    """Of the thread pool on two threads, and of memory."""

    barrier_ns: float
    region_ns: float
    exchange_gbs: float
    memory_gbs: dict[int, float]  # by threads, 1 and 2
    last_level_cache: int


@dataclass(frozen=True)
class Plan:
    """How make_plan cuts one step for some threads, and what is counted from it."""

    threads: int
    by_columns: bool
    slowdown: float  # the slowest thread's share of the arithmetic over an equal share
    barriers: int
    exchanged: int  # bytes that each thread reads and another core wrote


def layers(problem: Problem) -> list[tuple[int, int]]:
    """(K, N) of the engine's layers: the head's two are one."""
    found = {name: (ins, outs) for name, (outs, ins) in problem.layers().items()}
    ins, outs = found.pop("encoder_logvar")
    found["encoder_mean"] = (ins, 2 * outs)
    return list(found.values())


def plan(problem: Problem, cores: int) -> Plan:
    shapes, B = layers(problem), problem.batch
    padded = [(K, N, -(-N // GROUP) * GROUP) for K, N in shapes]
    work = B * (3 * sum(2 * K * N for K, N in shapes) + ELEMENT * sum(wide for *_, wide in padded))
    threads = int(min(max(work / WORTH, 1), cores))
    if threads == 1:
        return Plan(1, False, 1.0, 0, 0)
    weights = sum(K * wide for K, _, wide in padded)
    floats = weights + sum(wide for *_, wide in padded)
    elsewhere = (threads - 1) / threads
    if floats >= B * sum(wide for *_, wide in padded):
        # Forward and backward: a barrier after each layer, which then reads all columns of the one before.
        inputs = sum(K for K, _ in shapes[1:])
        outputs = sum(N for _, N in shapes[1:])
        return Plan(threads, True, 1.0, 2 * len(shapes) - 1, int(4 * B * (inputs + outputs) * elsewhere))
    # Rows: forward and backward to the end without a barrier, then dW reads everybody's rows, or their sums where each
    # thread has splits of its own; each thread reads all weights and transposed copies, which another core updated.
    tiles = -(-B // TALLEST)
    uneven = -(-tiles // threads) * threads / tiles
    splits = 1
    while floats <= SPLIT_FLOATS and splits < MOST_SPLITS and 2 * splits * SPLIT_ROWS <= B:
        splits *= 2
    sums = weights if splits > 1 and splits % threads == 0 else B * sum(K + N for K, N in shapes)
    exchanged = 4 * (2 * weights + sums) * elsewhere
    return Plan(threads, False, 2 / 3 * uneven + 1 / 3, 1, int(exchanged))


def predict(problem: Problem, one_thread_ms: float, cores: int, costs: Costs, grows: bool) -> float:
    """Milliseconds of a step. The memory's bandwidth stays at two threads' or `grows` with the cores."""
    share = plan(problem, cores)
    traffic = 2 * problem.state_bytes() if problem.state_bytes() > costs.last_level_cache else 0
    arithmetic = max(0.0, one_thread_ms - traffic / costs.memory_gbs[1] / 1e6)
    bandwidth = costs.memory_gbs[min(2, share.threads)] * (max(1.0, share.threads / 2) if grows else 1)
    # One counter is the barrier, and each thread's arrival moves its cache line: the cost grows with the threads. A
    # region's threads are called one after the other.
    waiting = share.barriers * costs.barrier_ns * share.threads / 2 + costs.region_ns * (share.threads - 1)
    moving = traffic / bandwidth + share.exchanged / costs.exchange_gbs
    return arithmetic * share.slowdown / share.threads + (waiting + moving) / 1e6


def pool_costs(threads: int = 2) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "threads"
        sources = [ROOT / name for name in ("bench/threads.cpp", "csrc/cpu/threads.cpp", "csrc/backend/platform.cpp")]
        include = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc/include'}"]
        subprocess.run(["c++", "-O3", "-std=c++17", "-pthread", *include, *sources, "-o", program], check=True)
        return json.loads(subprocess.run([program, str(threads)], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", help="from run.py with threads 1 and 2")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    options = parser.parse_args()
    record = json.loads(Path(options.record).read_text())
    if not {1, 2} <= set(record["threads"]):
        parser.error(f"{options.record} has threads {record['threads']}; it takes 1 and 2")
    pool = pool_costs()
    rates = "barrier {barrier_ns:.0f} ns, region {region_ns:.0f} ns, exchange {exchange_gbs:.1f} GB/s"
    print("on two threads:", rates.format(**pool))
    lines, found = [], []
    for config in record["configs"]:
        problem = PROBLEMS[config["config"]]
        limits = {limit["threads"]: limit for limit in config["limits"]}
        memory = {n: limits[n]["bandwidth"]["update"]["median"] for n in (1, 2)}
        costs = Costs(**pool, memory_gbs=memory, last_level_cache=limits[1]["last_level_cache"])
        ours = [row for row in config["rows"] if row["arm"] == "fusedvae" and not row["again"]]
        times = {row["threads"]: row["ms"]["median"] for row in ours}
        row = [problem.name, f"{times[1]:.4g}", f"{times[2]:.4g}"]
        for cores in CORES:
            share = plan(problem, cores)
            low, high = (predict(problem, times[1], cores, costs, grows) for grows in (True, False))
            found.append({"config": problem.name, "cores": cores, **asdict(share), "ms": low, "ms_same_memory": high})
            sharing = "columns" if share.by_columns else "rows" if share.threads > 1 else "alone"
            spread = f" - {high:.4g}" if high > 1.005 * low else ""
            row += [f"{share.threads} {sharing} {share.barriers}", f"{low:.4g}{spread}"]
        lines.append(row)
    headers = ["network", "1: ms", "2: ms"]
    for cores in CORES:
        headers += [f"{cores} cores: plan", "model ms"]
    print(table(headers, lines))
    print("plan: threads taken, sharing, barriers; a range is for memory that grows with the cores and for two cores'")
    if options.json:
        about = {"benchmark": "scaling", "machine": machine(), "from": options.record, "pool": pool}
        write(options.json, {**about, "rows": found})


if __name__ == "__main__":
    main()
