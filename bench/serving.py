# SPDX-License-Identifier: MIT
"""Times serving (encode to the mean, decode) on one thread: fusedvae, ONNX Runtime and PyTorch, interleaved.

    python bench/serving.py --json bench/results/serving.json

fusedvae three times: through the C API, as a native program calls it, with weights in float32 and in bfloat16, and
through Python's Model.reconstruct_into. At batch 1 the wide networks are bound by reading their weights: the bound is a
plain read loop over as many bytes, measured between the arms. At larger batches the arithmetic peak is. Then two Python
threads serve one model side by side.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from arms import ARMS, installed
from problems import PROBLEMS, Problem
from report import Neighbours, machine, quartiles, summary, table, write
from worker import Worker

CONFIGS, BATCHES = ("tabular", "mnist", "deep"), (1, 32, 1024)
OURS = ("serving", "serving.bf16", "serving.python")
PEERS = ("serving.onnx", "serving.torch")
VERIFIED_ROWS, TOLERANCE = 33, 2e-6  # absolute; outputs are of the order of 1


WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}


def weight_count(problem: Problem) -> int:
    """The weights that a reconstruction needs: the log-variance's are not among them."""
    return sum(outs * ins for name, (outs, ins) in problem.layers().items() if name != "encoder_logvar")


def verify(problem: Problem, workers: dict[str, Worker]) -> dict[str, float]:
    """Each arm's greatest difference from double precision."""
    with Worker("serving.reference", 1) as reference:
        reference.ask("prepare", problem)
        right = {precision: reference.ask("output", VERIFIED_ROWS, precision)[0] for precision in WEIGHT_BYTES}
    differences = {}
    for arm, worker in workers.items():
        expected = right[ARMS[arm].precision]
        values, _ = worker.ask("output", VERIFIED_ROWS)
        differences[arm] = max(abs(value - wanted) for value, wanted in zip(values, expected, strict=True))
        if not differences[arm] <= TOLERANCE:
            raise SystemExit(
                f"{problem.name}: {arm} is {differences[arm]:.2g} from the reference: not the same network"
            )
    return differences


def measure(problem: Problem, arms: list[str], seconds: float, rounds: int) -> dict:
    """One network's record: for each batch and arm the microseconds per call of each round."""
    flops = 2 * weight_count(problem)
    sizes = {precision: each * weight_count(problem) for precision, each in WEIGHT_BYTES.items()}
    with Neighbours() as neighbours, ExitStack() as stack:
        workers = {arm: stack.enter_context(Worker(arm, 1)) for arm in arms}
        about = {arm: worker.ask("about")[0] for arm, worker in workers.items()}
        for worker in workers.values():
            worker.ask("prepare", problem)
        differences = verify(problem, workers)
        record = {"config": problem.name, "weight_bytes": sizes, "flops_per_row": flops, "batches": []}
        for rows in BATCHES:
            calls = {}
            for arm, worker in workers.items():
                worker.ask("serve", rows, 2)
                once = min(worker.ask("serve", rows, 3)[0] / 3 for _ in range(3))
                calls[arm] = max(1, round(seconds / rounds / once))
            samples: dict[str, list[float]] = {arm: [] for arm in arms}
            reads: dict[str, list[float]] = {precision: [] for precision in sizes}
            peaks = []
            for _ in range(rounds):
                for arm, worker in workers.items():
                    worker.ask("prepare", problem)  # anew: copies of one model differ by 6 % at batch 1
                    worker.ask("serve", rows, max(1, calls[arm] // 10))  # the caches belong to the arm before
                    samples[arm].append(1e6 * worker.ask("serve", rows, calls[arm])[0] / calls[arm])
                passes = max(1, calls["serving"] // 4)
                for precision, size in sizes.items():
                    reads[precision].append(size * passes / workers["serving"].ask("read", size, passes)[0] / 1e9)
                peaks.append(workers["serving"].ask("peak", 0.02)[0])
            # The loop can meet a slower moment than the arms did; the peak is never below a product that was measured.
            fastest = min(summary(times)["median"] for times in samples.values())
            bandwidth = {precision: summary(rates) for precision, rates in reads.items()}
            peak = max(summary(peaks)["median"], flops * rows / fastest / 1e3)
            record["batches"].append(
                {
                    "rows": rows,
                    "read_gbs": bandwidth,
                    "peak_gflops": peak,
                    "bound_us": {
                        precision: {
                            "weights": size / bandwidth[precision]["median"] / 1e3,
                            "arithmetic": flops * rows / peak / 1e3,
                        }
                        for precision, size in sizes.items()
                    },
                    "arms": {arm: {"us": summary(times), "calls": calls[arm]} for arm, times in samples.items()},
                }
            )
    return {**record, "verified_to": differences, "neighbours": neighbours.cores, "versions": about}


def side_by_side(problem: Problem, seconds: float, rounds: int) -> list[dict]:
    """Rows per second that one and two Python threads get out of one model."""
    found = []
    with Worker("serving.python", 2) as worker:
        worker.ask("prepare", problem)
        for rows in (1, 32):
            calls = max(1, round(seconds / rounds / (worker.ask("serve", rows, 20)[0] / 20)))
            samples: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(rounds):
                for threads, rates in samples.items():
                    took, _ = worker.ask("serve_side_by_side", rows, calls, threads)
                    rates.append(rows * calls * threads / took)
            rates = {str(threads): summary(values) for threads, values in samples.items()}
            gain = rates["2"]["median"] / rates["1"]["median"]
            found.append({"config": problem.name, "rows": rows, "rows_per_second": rates, "gain": gain})
    return found


def lines(record: dict) -> list[list[str]]:
    found = []
    for batch in record["batches"]:
        ours = batch["arms"]["serving"]["us"]["median"]
        for arm, values in batch["arms"].items():
            us, bound = values["us"], max(batch["bound_us"][ARMS[arm].precision].values())
            cells = [f"{100 * bound / us['median']:.0f}", f"{us['median'] / ours:.2f}"]
            found.append([f"{record['config']:8s}{batch['rows']:5d}  {ARMS[arm].title}", *quartiles(us, ".4g"), *cells])
        for precision, bounds in batch["bound_us"].items():
            kind = max(bounds, key=bounds.get)
            rate = f"{batch['peak_gflops']:.0f} GFLOP/s"
            if kind == "weights":
                rate = f"{precision}, {batch['read_gbs'][precision]['median']:.0f} GB/s"
            line = [f"{'':15s}bound: {kind}, {rate}", f"{bounds[kind]:.4g}", "", "100", ""]
            if line != found[-1]:
                found.append(line)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default=",".join(CONFIGS), help="comma-separated, of %(default)s")
    parser.add_argument("--seconds", type=float, default=1, help="timed, for each arm, network, batch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="turns that each arm takes in them (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    arguments = parser.parse_args()
    configs = arguments.configs.split(",")
    for name in configs:
        if name not in CONFIGS:
            parser.error(f"no {name!r}; known are {', '.join(CONFIGS)}")
    arms = [*OURS, *(peer for peer in PEERS if installed(peer))]
    for peer in set(PEERS) - set(arms):
        print(f"left out: {ARMS[peer].title} (not installed)")

    where, records, shared = machine(), [], []
    print(f"{where['processor']}; one thread")
    for name in configs:
        records.append(measure(PROBLEMS[name], arms, arguments.seconds, arguments.rounds))
        headers = ["network  rows  arm", "us per call", "quartiles", "% of the possible", "x fusedvae's"]
        print(table(headers, lines(records[-1])), flush=True)
        shared += side_by_side(PROBLEMS[name], arguments.seconds, arguments.rounds)
    print("\nSeveral Python threads, one model, reconstruct_into:")
    cells = [
        [f"{one['config']:8s}{one['rows']:5d}"]
        + [f"{one['rows_per_second'][threads]['median']:.4g}" for threads in ("1", "2")]
        + [f"{one['gain']:.2f}"]
        for one in shared
    ]
    print(table(["network  rows", "rows/s, 1 thread", "2 threads", "gain"], cells))
    if arguments.json:
        record = {"benchmark": "serving", "machine": where, "threads": 1, "configs": records, "side_by_side": shared}
        write(arguments.json, record)


if __name__ == "__main__":
    main()
