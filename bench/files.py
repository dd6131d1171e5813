# SPDX-License-Identifier: MIT
"""Times saving and loading a large model, and a process from its start to its first score, beside the peers.

    python bench/files.py --json bench/results/files.json

Needs torch, safetensors, onnx and onnxruntime. Files are warm: in the page cache, as those of a service that starts
again. fusedvae writes a temporary file, calls fsync and renames it; so that the disk is not compared with the cache,
the peers' files are followed by fsync too. The safetensors package maps a file and reads none of it before its use.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fusedvae as fv
import numpy as np
import safetensors.torch
import torch
from report import machine, quartiles, summary, table, write

LARGE = fv.Config(input_shape=4096, hidden=(2560, 1024), latent=64)  # 105 MB
SMALL = fv.Config(input_shape=784, hidden=(400,), latent=20)  # mnist of the other benchmarks

# From the process's start to one row's reconstruction; the parent's clock runs around all of it.
STARTS = {
    "fusedvae": """
import sys
import numpy as np
import fusedvae as fv
print(fv.load(sys.argv[1]).reconstruct(np.zeros((1, 784), np.float32)).sum())
""",
    "ONNX Runtime": """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
print(session.run(["mean"], {session.get_inputs()[0].name: np.zeros((1, 784), np.float32)})[0].sum())
""",
    "PyTorch": """
import sys
import torch
module = torch.nn.Sequential(torch.nn.Linear(784, 400), torch.nn.ReLU(), torch.nn.Linear(400, 20),
                             torch.nn.Linear(20, 400), torch.nn.ReLU(), torch.nn.Linear(400, 784), torch.nn.Sigmoid())
module.load_state_dict(torch.load(sys.argv[3], weights_only=True))
with torch.inference_mode():
    print(module(torch.zeros(1, 784)).sum().item())
""",
}


def synced(save, path: Path) -> None:
    save(path)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def large_files(folder: Path, rounds: int) -> dict:
    model = fv.Model(LARGE, seed=0)
    state = {name: torch.from_numpy(values) for name, values in model.parameters().items()}
    paths = {name: folder / name for name in ("fusedvae", "torch", "safetensors")}
    saves = {
        "fusedvae": lambda: model.save(paths["fusedvae"]),
        "torch": lambda: synced(lambda path: torch.save(state, path), paths["torch"]),
        "safetensors": lambda: synced(lambda path: safetensors.torch.save_file(state, path), paths["safetensors"]),
    }
    loads = {
        "fusedvae": lambda: fv.load(paths["fusedvae"]),
        "torch": lambda: torch.load(paths["torch"], weights_only=True),
        "safetensors": lambda: safetensors.torch.load_file(paths["safetensors"]),
    }
    times = {arm: {"save": [], "load": []} for arm in saves}
    for turn in range(rounds + 1):
        for arm in saves:
            for what, call in (("save", saves[arm]), ("load", loads[arm])):
                start = time.perf_counter()
                result = call()
                if turn:  # the first finds files, pages and libraries cold
                    times[arm][what].append(1e3 * (time.perf_counter() - start))
        loaded = result if isinstance(result, dict) else result.parameters()
        assert all(np.array_equal(np.asarray(loaded[name]), values) for name, values in state.items())
    megabytes = paths["fusedvae"].stat().st_size / 1e6
    return {"MB": megabytes, "arms": {a: {w: summary(v) for w, v in both.items()} for a, both in times.items()}}


def cold_starts(folder: Path, rounds: int) -> dict:
    model = fv.Model(SMALL, seed=0)
    paths = [str(folder / name) for name in ("small.safetensors", "small.onnx", "small.pt")]
    model.save(paths[0])
    fv.to_onnx(model, paths[1])
    p = {name: torch.from_numpy(values) for name, values in model.parameters().items()}
    places = {0: "encoder.0", 2: "encoder_mean", 3: "decoder.0", 5: "decoder_logits"}
    torch.save({f"{i}.{k}": p[f"{name}.{k}"] for i, name in places.items() for k in ("weight", "bias")}, paths[2])
    expected = float(model.reconstruct(np.zeros((1, 784))).sum())
    times = {arm: [] for arm in STARTS}
    for turn in range(rounds + 1):
        for arm, program in STARTS.items():
            start = time.perf_counter()
            command = [sys.executable, "-c", program, *paths]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
            seconds = time.perf_counter() - start
            assert abs(float(done.stdout) - expected) < 1e-4 * expected, (arm, done.stdout, expected)
            if turn:
                times[arm].append(1e3 * seconds)
    return {arm: summary(samples) for arm, samples in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = large_files(Path(folder), arguments.rounds)
        starts = cold_starts(Path(folder), arguments.rounds)
    lines = [
        [f"{what} {files['MB']:.0f} MB", arm, *quartiles(both[what], ".1f")]
        for what in ("save", "load")
        for arm, both in files["arms"].items()
    ]
    lines += [["process to first score", arm, *quartiles(values, ".0f")] for arm, values in starts.items()]
    print(table(["", "", "ms", "quartiles"], lines))
    if arguments.json:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "safetensors", "onnxruntime")}
        record = {"benchmark": "files", "machine": machine(), "versions": versions, "files": files, "starts": starts}
        write(arguments.json, json.loads(json.dumps(record)))


if __name__ == "__main__":
    main()
