# SPDX-License-Identifier: MIT
"""Memory of a training: what Trainer.memory() lists, and how far the process grows while it fits (Linux).

    python bench/memory.py --json bench/results/memory.json

For each kind of input a fresh process makes the data, lets the kernel forget its peak, fits one epoch and reads the
new peak: a copy of the data anywhere on the way would show as growth of the data's size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from report import machine, table, write

MIB = 1024 * 1024
KINDS = ("float32", "float64", "uint8", "memmap")
WIDTH = 784


def status(field: str) -> int:
    """Bytes of one line of /proc/self/status, e.g. VmHWM, the peak of resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure(kind: str, rows: int, threads: int) -> dict:
    """In a process of its own: data of that kind, one epoch of 784-400-20 over it, and the growth."""
    import fusedvae as fv
    import numpy as np

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "memmap":
            x = np.memmap(f"{folder}/x.f32", np.float32, "w+", shape=(rows, WIDTH))
            for block in np.split(x, range(1000, rows, 1000)):
                block[:] = rng.random(block.shape, dtype=np.float32)
            x.flush()
            del block, x  # its pages leave the process; reading the map again brings them back one by one
            x = np.memmap(f"{folder}/x.f32", np.float32, "r", shape=(rows, WIDTH))
        elif kind == "uint8":
            x = rng.integers(0, 256, (rows, WIDTH), dtype=np.uint8)
        else:
            x = rng.random((rows, WIDTH), dtype=kind)
        model = fv.Model(fv.Config(input_shape=WIDTH, hidden=(400,), latent=20))
        trainer = fv.Trainer(model, batch_size=128, threads=threads)
        trainer.step(x[:128])  # threads started, workspaces made
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here (man 5 proc)
        before, anonymous = status("VmHWM"), status("RssAnon")
        trainer.fit(x, epochs=1)
        return {
            "data": x.nbytes,
            "parameters": 4 * sum(value.size for value in model.parameters().values()),
            "trainer": trainer.memory(),
            "peak_growth": status("VmHWM") - before,
            "own_growth": status("RssAnon") - anonymous,  # without the file's pages, which the kernel may drop
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60000, help="of the data, 784 wide (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    parser.add_argument("--kind", choices=KINDS, help="measure this one in this very process and print its JSON")
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(measure(arguments.kind, arguments.rows, arguments.threads)))
        return

    results = {}
    for kind in KINDS:
        command = [sys.executable, __file__, "--kind", kind, "--rows", str(arguments.rows)]
        command += ["--threads", str(arguments.threads)]
        results[kind] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    lines = [
        [kind, *(f"{r[key] / MIB:.1f}" for key in ("data", "peak_growth", "own_growth"))] for kind, r in results.items()
    ]
    print(table(["MiB; data as", "data", "peak growth in fit", "of it own"], lines))
    print()
    one = results["float32"]
    lines = [[name, f"{size / MIB:.2f}", f"{size / one['parameters']:.2f}"] for name, size in one["trainer"].items()]
    print(table(["Trainer.memory(), 784-400-20", "MiB", "x parameters"], lines))
    if arguments.json:
        write(arguments.json, {"benchmark": "memory", "machine": machine(), "rows": arguments.rows, "inputs": results})


if __name__ == "__main__":
    main()
