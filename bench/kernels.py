# SPDX-License-Identifier: MIT
"""Times the engine's kernels on one thread: every line of csrc/layer/pairs.inc, and every tile of the micro-kernel.

    python bench/kernels.py --out bench/results        # writes kernels.json and kernels.txt there

Both come from native programs (bench/native/bench_kernels.cpp, bench_tiles.cpp), whose arms take turns and check their
answers first. A kernel stands beside the plain product of its shape, so that the difference is what its epilogue costs.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from build_native import add_option, ask, build, compiler_of
from problems import PROBLEMS
from report import Neighbours, machine, summary, table, write

NETWORKS = [PROBLEMS[name] for name in ("mnist", "deep", "tabular")]


def kernels(program: Path, backend: str, turns: int, seconds: float) -> dict[str, list[dict]]:
    """{network: a record for each line of the list}."""
    records = {}
    for problem in NETWORKS:
        layers = "-".join(map(str, (problem.width, *problem.hidden, problem.latent)))
        lines = ask(program, layers, problem.batch, backend, turns, seconds)["kernels"]
        for line in lines:
            for key in ("us", "plain_us", "peak_gflops"):
                line[key] = summary(line[key])
            took = line["us"]["median"]
            line["gflops"] = line["flops"] / took / 1e3
            line["gb_per_s"] = line["bytes"] / took / 1e3
            line["percent_of_plain"] = 100 * line["plain_us"]["median"] / took
            line["percent_of_peak"] = 100 * line["gflops"] / line["peak_gflops"]["median"]
        records[problem.name] = lines
    return records


def kernel_table(records: dict[str, list[dict]]) -> str:
    headers = ["kernel", "network", "B x K x N", "us", "GFLOP/s", "GB/s", "% of plain", "% of peak"]
    lines = []
    for same in zip(*records.values(), strict=True):
        for network, line in zip(records, same, strict=True):
            name = f"{line['pass']} {line['prologue']} {line['epilogue']}"
            cells = [f"{line['us']['median']:.4g}", f"{line['gflops']:.0f}", f"{line['gb_per_s']:.1f}"]
            percent = [f"{line['percent_of_plain']:.0f}", f"{line['percent_of_peak']:.0f}"]
            lines.append([name, network, f"{line['B']} x {line['K']} x {line['N']}", *cells, *percent])
    return table(headers, lines)


def peak(records: dict[str, list[dict]]) -> float:
    return statistics.median(line["peak_gflops"]["median"] for lines in records.values() for line in lines)


def tiles(program: Path, turns: int, seconds: float) -> dict[str, dict]:
    """{backend: its peak and its tiles}, each tile with its median percentage of that peak."""
    backends = ask(program, turns, seconds)
    for backend in backends.values():
        for tile in backend["tiles"]:
            tile["gflops"] = summary(tile["gflops"])
        backend["loop_gflops"] = summary(backend.pop("peak_gflops"))
        # Portable code's own loop, one float at a time, is no peak: compilers put vectors into its tiles.
        best = max(tile["gflops"]["median"] for tile in backend["tiles"])
        backend["peak_gflops"] = max(best, backend["loop_gflops"]["median"])
        for tile in backend["tiles"]:
            tile["percent_of_peak"] = 100 * tile["gflops"]["median"] / backend["peak_gflops"]
    return backends


def tile_table(backends: dict[str, dict], walk: str) -> str:
    """Heights by widths; a star marks the tallest tile that the backend takes for panels of that width."""
    cells = {
        (backend, tile["columns"], tile["rows"]): f"{tile['percent_of_peak']:.0f}{'*' if tile['chosen'] else ' '}"
        for backend, record in backends.items()
        for tile in record["tiles"]
        if tile["walk"] == walk
    }
    columns = list(dict.fromkeys((backend, width) for backend, width, _ in cells))
    heights = sorted({rows for _, _, rows in cells})
    lines = [[f"{rows} rows", *(cells.get((*column, rows), "") for column in columns)] for rows in heights]
    first = dict(reversed(columns))  # the narrowest panel of each backend: its column bears the name
    heads = [f"{backend} {width}" if first[backend] == width else str(width) for backend, width in columns]
    return table(["", *heads], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backends", default="avx512,avx512_bf16", help="of the kernels; tiles are of all (%(default)s)"
    )
    parser.add_argument("--turns", type=int, default=9, help="of each arm (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.01, help="of each turn; tiles a third (%(default)s)")
    parser.add_argument("--out", metavar="DIR", help="write kernels.json and kernels.txt there")
    add_option(parser)
    options = parser.parse_args()
    programs = build(options.build, "bench_kernels", "bench_tiles")
    where = {**machine(), "compiler": compiler_of(programs)}
    with Neighbours() as neighbours:
        lines = {
            name: kernels(programs / "bench_kernels", name, options.turns, options.seconds)
            for name in options.backends.split(",")
        }
        backends = tiles(programs / "bench_tiles", options.turns, options.seconds / 3)

    peaks = ", ".join(f"{name} {record['peak_gflops']:.1f}" for name, record in backends.items())
    text = "\n".join(
        [
            f"{where['processor']}; {where['compiler']}; one thread; commit {where['commit']}",
            *(
                f"\nEvery kernel of the list on {name}, peak {peak(records):.0f} GFLOP/s; plain: the product alone\n\n"
                f"{kernel_table(records)}"
                for name, records in lines.items()
            ),
            f"\nTiles, rows by columns, percent of each backend's peak (GFLOP/s: {peaks}); * those it takes",
            "\nrows of A along the inner dimension (forward, dgrad)\n",
            tile_table(backends, "along"),
            "\nrows of A across it (wgrad)\n",
            tile_table(backends, "across"),
        ]
    )
    print(text)
    if options.out:
        record = {"benchmark": "kernels", "machine": where, "kernels": lines}
        write(Path(options.out) / "kernels.json", {**record, "tiles": backends, "neighbours": neighbours.cores})
        (Path(options.out) / "kernels.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
