# SPDX-License-Identifier: MIT
"""What every benchmark's record shares: quartiles, tables, and the machine, compilers and commit of the run."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path


def summary(samples: list[float]) -> dict:
    """Median and quartiles; of two samples or one, their extremes stand for the quartiles."""
    if len(samples) < 3:
        low, high = min(samples), max(samples)
    else:
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    values = {"median": statistics.median(samples), "q1": low, "q3": high}
    return {**values, "samples": [float(f"{sample:.6g}") for sample in samples]}


def quartiles(values: dict, form: str) -> list[str]:
    """Two cells of a table: the median, and the quartiles around it."""
    return [f"{values['median']:{form}}", f"{values['q1']:{form}} - {values['q3']:{form}}"]


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Fixed-width text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]

    def line(cells):
        return "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join([line(headers), line(["-" * w for w in widths]), *map(line, rows)])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(
            [part.strip() for part in line.split(":", 1)]
            for line in cpuinfo.read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        keys = ("model name", "cpu family", "model", "stepping")
        parts = [fields[key] if key == "model name" else f"{key} {fields[key]}" for key in keys if key in fields]
        return ", ".join(parts)
    return platform.processor()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def machine() -> dict:
    """Where and of what this run is: processor, cores, system, Python, commit, load at the start."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
        "command": "python bench/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


class Neighbours:
    """What others took of the machine while a measurement and its processes ran: cores they kept busy, and cores that
    the hypervisor stole. A framework whose threads spin at barriers loses far more than its share to them, so figures
    beside busy neighbours are worth nothing. Known on Linux; elsewhere `cores` stays empty."""

    ALLOWED = 0.05

    def __enter__(self) -> Neighbours:
        self.cores: dict[str, float] = {}
        self.start = self._seconds()
        return self

    def __exit__(self, *exception) -> None:
        if self.start is None:
            return
        wall, busy, stolen, ours = (end - start for start, end in zip(self.start, self._seconds(), strict=True))
        self.cores = {"busy": round(max(0.0, busy - ours) / wall, 3), "stolen": round(stolen / wall, 3)}
        if sum(self.cores.values()) > self.ALLOWED:
            print(f"warning: others took {self.cores} cores of this machine meanwhile; do not trust these times")

    def _seconds(self) -> tuple[float, ...] | None:
        """Wall clock; busy and stolen time of all cores; our own processes' time, those of children that have ended."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return None
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in stat.read_text().split("\n")[0].split()[1:9]]
        user, nice, system, _idle, _waiting, irq, softirq, stolen = ticks
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ours = sum(one.ru_utime + one.ru_stime for one in usage)
        return time.perf_counter(), user + nice + system + irq + softirq, stolen, ours


def write(path: str | Path, record: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {path}")
