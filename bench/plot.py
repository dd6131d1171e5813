# SPDX-License-Identifier: MIT
"""Draws what run.py measured, beside the record: needs matplotlib.

    python bench/plot.py bench/results/step.json     step_roofline.png, step_ratio.png
    python bench/plot.py bench/results/batch.json    batch.png, for a sweep

Where a record has several counts of threads, the pictures show the greatest.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from measure import best_peer

# Colours of Okabe and Ito, which colour-blind readers can tell apart; bfloat16 arms have open markers.
OURS = "#D55E00"
STYLES = {
    "fusedvae": (OURS, "o"),
    "fusedvae.bf16": (OURS, "o"),
    "torch": ("#0072B2", "s"),
    "torch.compile": ("#56B4E9", "D"),
    "torch.bf16": ("#0072B2", "s"),
    "jax": ("#009E73", "^"),
}
PRECISIONS = {"float32": "-", "bfloat16": "--"}
SHORT = {"torch": "eager", "torch.compile": "compile", "torch.bf16": "compile", "jax": "JAX"}


def style(row: dict) -> dict:
    colour, marker = STYLES[row["arm"]]
    inside = "white" if row["precision"] == "bfloat16" else colour
    return {"color": colour, "marker": marker, "markerfacecolor": inside, "markeredgewidth": 1.3, "markersize": 7}


def shown(record: dict, threads: int) -> list[dict]:
    return [row for row in record["rows"] if row["threads"] == threads and not row["again"]]


def limit(record: dict, threads: int) -> dict:
    return next(limit for limit in record["limits"] if limit["threads"] == threads)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def peaks(records: list[dict], threads: int) -> dict[str, float]:
    """The run's peak of each precision: the median over its networks."""
    found: dict[str, list[float]] = {}
    for record in records:
        for precision, peak in limit(record, threads)["peaks"].items():
            found.setdefault(precision, []).append(peak["gflops"])
    return {precision: median(values) for precision, values in found.items()}


def spread(positions: list[float], gap: float) -> list[float]:
    """Positions moved apart, as little as it takes, until neighbours are `gap` from each other."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    groups: list[list[int]] = []  # neighbours that touch, each group centred on its own mean
    for i in order:
        groups.append([i])
        while len(groups) > 1 and _left(groups[-1], positions, gap) < _right(groups[-2], positions, gap) + gap:
            last = groups.pop()
            groups[-1] += last
    moved = list(positions)
    for group in groups:
        for k, i in enumerate(group):
            moved[i] = _left(group, positions, gap) + k * gap
    return moved


def _left(group: list[int], positions: list[float], gap: float) -> float:
    return sum(positions[i] for i in group) / len(group) - gap * (len(group) - 1) / 2


def _right(group: list[int], positions: list[float], gap: float) -> float:
    return _left(group, positions, gap) + gap * (len(group) - 1)


def roofline(records: list[dict], threads: int, subtitle: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(10, 6.4), layout="constrained")
    intensities = [record["flops"] / record["step_bytes"] for record in records]
    ends = [min(intensities) / 2.2, max(intensities) * 2.2]
    top = max(peaks(records, threads).values())
    bandwidth = median([limit(record, threads)["bandwidth"]["update"]["median"] for record in records])
    for precision, peak in peaks(records, threads).items():
        corner = peak / bandwidth
        label = f"{precision} peak, {peak:.0f} GFLOP/s"
        axes.plot([corner, ends[1]], [peak, peak], color="0.25", linestyle=PRECISIONS[precision], label=label, zorder=1)
    label = f"memory, {bandwidth:.0f} GB/s (caches may do better)"
    roof = ([ends[0], top / bandwidth], [bandwidth * ends[0], top])
    axes.plot(*roof, color="0.25", linestyle=":", label=label, zorder=1)
    named = set()
    for record, intensity in zip(records, intensities, strict=True):
        rows = shown(record, threads)
        for row in rows:
            label = None if row["arm"] in named else row["title"]
            named.add(row["arm"])
            axes.plot(intensity, row["gflops"], linestyle="", label=label, zorder=3, **style(row))
    low = min(row["gflops"] for record in records for row in shown(record, threads))
    for record, intensity, x in zip(
        records, intensities, spread([math.log(i) for i in intensities], math.log(ends[1] / ends[0]) / 13), strict=True
    ):
        best = max(row["gflops"] for row in shown(record, threads))
        end = (math.exp(x), top * 1.9)
        arrow = {"arrowstyle": "-", "color": "0.75", "linewidth": 0.8, "shrinkA": 1, "shrinkB": 5}
        axes.annotate(record["config"], (intensity, best), end, ha="center", va="bottom", arrowprops=arrow, fontsize=10)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=(low / 1.6, top * 2.8))
    axes.set_xlabel("operations for each byte of weights and moments (read and written once) and of the batch")
    axes.set_ylabel("GFLOP/s")
    _plain(axes.xaxis, [1, 2, 5, 10, 20, 50, 100, 200, 500])
    _plain(axes.yaxis, [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000])
    axes.grid(color="0.92", zorder=0)
    axes.set_title(f"One training step against the machine's limits\n{subtitle}", fontsize=11)
    axes.legend(loc="lower right", fontsize=9, framealpha=0.95)
    _save(figure, path)


def ratio(records: list[dict], threads: int, subtitle: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(10, 4.8), layout="constrained")
    both = [(p, [best_peer(record, p, threads) for record in records]) for p in PRECISIONS]
    both = [(p, rows) for p, rows in both if any(row and row["times_fusedvae"] for row in rows)]
    if not both:
        print(f"no peers: {path} is not drawn")
        return
    width = 0.8 / len(both)
    lowest = highest = 1.0
    for k, (precision, rows) in enumerate(both):
        fill = {"facecolor": "white", "hatch": "///"} if precision == "bfloat16" else {"facecolor": OURS}
        for x, row in enumerate(rows):
            if not row or not row["times_fusedvae"]:
                continue
            times, at = row["times_fusedvae"], x + (k - (len(both) - 1) / 2) * width
            lowest, highest = min(lowest, times), max(highest, times)
            label = precision if precision not in axes.get_legend_handles_labels()[1] else None
            axes.bar(at, times - 1, width * 0.92, bottom=1, label=label, edgecolor=OURS, zorder=2, **fill)
            above = times >= 1
            axes.annotate(
                f"{times:.2f}\n{SHORT[row['arm']]}", (at, times), (0, 2 if above else -2), textcoords="offset points",
                ha="center", va="bottom" if above else "top", fontsize=8.5,
            )  # fmt: skip
    axes.axhline(1, color="0.25", linewidth=1, zorder=3)
    axes.set(yscale="log", ylim=(lowest / 1.4, highest * 1.6))
    _plain(axes.yaxis, [0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 3, 5, 10, 20, 50])
    axes.set_xticks(range(len(records)), [record["config"] for record in records])
    axes.set_ylabel("best peer's time / fusedvae's")
    axes.grid(axis="y", color="0.92", zorder=0)
    axes.set_title(f"The fastest of PyTorch and JAX, named above each bar, beside fusedvae\n{subtitle}", fontsize=11)
    axes.legend(loc="upper right", fontsize=9)
    _save(figure, path)


def sweep(records: list[dict], threads: int, subtitle: str, path: Path) -> None:
    """GFLOP/s over batch or width; the record's networks are called "batch 64" or "width 64"."""
    figure, axes = plt.subplots(figsize=(10, 5.6), layout="constrained")
    what = records[0]["config"].split()[0]
    sizes = [int(record["config"].split()[1]) for record in records]
    for row in shown(records[0], threads):
        rates = [next(r["gflops"] for r in shown(record, threads) if r["arm"] == row["arm"]) for record in records]
        line = PRECISIONS[row["precision"]]
        axes.plot(sizes, rates, linestyle=line, linewidth=1.4, label=row["title"], zorder=3, **style(row))
    for precision in peaks(records, threads):
        line = [limit(record, threads)["peaks"][precision]["gflops"] for record in records]
        axes.plot(sizes, line, color="0.25", linestyle=PRECISIONS[precision], linewidth=1, label=f"{precision} peak")
    axes.set(xscale="log", yscale="log", xlabel=f"{what} ({about(records[0], what)})", ylabel="GFLOP/s")
    _plain(axes.xaxis, sizes)
    _plain(axes.yaxis, [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000])
    axes.grid(color="0.92", zorder=0)
    axes.set_title(f"One training step over the {what}\n{subtitle}", fontsize=11)
    axes.legend(loc="lower right", fontsize=9)
    _save(figure, path)


def about(record: dict, what: str) -> str:
    width, *hidden, latent = record["layers"]
    if what == "batch":
        return f"{'-'.join(map(str, [width, *hidden]))}, latent {latent}"
    return f"W columns, one hidden layer of W, latent {latent}, batch {record['batch']}"


def _plain(axis, ticks: list[float]) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"wrote {path}")


def main() -> None:
    if len(sys.argv) < 2 or not all(name.endswith(".json") for name in sys.argv[1:]):
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        path = Path(name)
        record = json.loads(path.read_text())
        threads = max(record["threads"])
        where = record["machine"]
        subtitle = f"{where['processor']}; {threads} threads; commit {(where['commit'] or 'unknown')[:7]}"
        if record["benchmark"] == "step":
            roofline(record["configs"], threads, subtitle, path.with_name(f"{path.stem}_roofline.png"))
            ratio(record["configs"], threads, subtitle, path.with_name(f"{path.stem}_ratio.png"))
        else:
            sweep(record["configs"], threads, subtitle, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
