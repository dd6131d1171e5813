# SPDX-License-Identifier: MIT
"""Times `import fusedvae` against `import numpy`, each in fresh interpreters, interleaved.

    python bench/import_time.py --json bench/results/import_time.json

The clock runs around the import alone; the interpreter's own start is not in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from report import machine, quartiles, summary, table, write

PROGRAM = """
import json, resource, sys, time
start = time.perf_counter()
__import__(sys.argv[1])
seconds = time.perf_counter() - start
unit = 1024 if sys.platform == "darwin" else 1
print(json.dumps([1e3 * seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / 1024]))
"""


def once(package: str) -> tuple[float, float]:
    """Milliseconds of the import and the process's peak MiB after it."""
    # From another folder, so that it is the installed package that is imported.
    done = subprocess.run([sys.executable, "-c", PROGRAM, package], capture_output=True, text=True, check=True, cwd="/")
    milliseconds, mebibytes = json.loads(done.stdout)
    return milliseconds, mebibytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="imports of each (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    arguments = parser.parse_args()

    packages = ("numpy", "fusedvae")
    for package in packages:
        once(package)  # files into the page cache, bytecode written
    runs = {package: [] for package in packages}
    for _ in range(arguments.rounds):
        for package in packages:
            runs[package].append(once(package))
    record = {
        package: {"ms": summary([ms for ms, _ in pairs]), "peak_mib": summary([mib for _, mib in pairs])["median"]}
        for package, pairs in runs.items()
    }
    lines = [
        [f"import {package}", *quartiles(values["ms"], ".1f"), f"{values['peak_mib']:.1f}"]
        for package, values in record.items()
    ]
    print(table(["", "ms", "quartiles", "peak MiB"], lines))
    added = record["fusedvae"]["ms"]["median"] - record["numpy"]["ms"]["median"]
    print(f"fusedvae adds {added:.1f} ms to numpy's import")
    if arguments.json:
        write(arguments.json, {"benchmark": "import_time", "machine": machine(), "added_ms": added, **record})


if __name__ == "__main__":
    main()
