# SPDX-License-Identifier: MIT
"""Arms of serving.py: reconstruct (encode to the mean, decode) on one thread. Each answers

about() -> dict                  names and versions for the record
prepare(problem)                 the network at problem.parameters()
output(rows) -> list             what the first rows of the data become, flat; the reference: in a precision
serve(rows, calls) -> float      seconds of `calls` calls with so many rows
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from problems import Problem

MOST_ROWS = 1024


def data(problem: Problem) -> np.ndarray:
    """(1024, D) float32 in (0, 1)."""
    return np.random.default_rng(4).random((MOST_ROWS, problem.width), dtype=np.float32)


def repeat(call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start


def nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """Eight significant bits, ties to even."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction * 256), exponent - 8)


class Reference:
    """Double precision: what every arm must put out, with weights of its precision."""

    def __init__(self, threads: int):
        pass

    def prepare(self, problem: Problem) -> None:
        self.problem = problem

    def output(self, rows: int, precision: str) -> list[float]:
        values = {name: value.astype(np.float64) for name, value in self.problem.parameters().items()}
        if precision == "bfloat16":
            values |= {name: nearest_bfloat16(value) for name, value in values.items() if name.endswith(".weight")}
        y = data(self.problem)[:rows].astype(np.float64)
        for name in self.problem.layers():
            if name == "encoder_logvar":
                continue
            y = y @ values[f"{name}.weight"].T + values[f"{name}.bias"]
            if name[-1].isdigit():  # a hidden layer
                y = np.maximum(y, 0)
        return (1 / (1 + np.exp(-y)) if self.problem.likelihood == "bernoulli" else y).ravel().tolist()


class Python:
    """fusedvae through Model.reconstruct_into."""

    def __init__(self, threads: int):
        import fusedvae

        self.fv = fusedvae
        fusedvae.set_num_threads(threads)

    def about(self) -> dict:
        from arms.fused import compilers

        return {"fusedvae": self.fv.__version__, "backend": self.fv.backend(), "compilers": compilers()}

    def prepare(self, problem: Problem) -> None:
        self.x = data(problem)
        self.out = np.empty_like(self.x)
        self.model = self.fv.Model(
            self.fv.Config(
                input_shape=problem.width, hidden=problem.hidden, latent=problem.latent, likelihood=problem.likelihood
            )
        )
        self.model.set_parameters(problem.parameters())

    def output(self, rows: int) -> list[float]:
        self.serve(rows, 1)
        return self.out[:rows].ravel().tolist()

    def serve(self, rows: int, calls: int) -> float:
        x, out, model = self.x[:rows], self.out[:rows], self.model
        return repeat(lambda: model.reconstruct_into(x, out), calls)

    def serve_side_by_side(self, rows: int, calls: int, threads: int) -> float:
        """Seconds in which each of so many Python threads makes `calls` calls on the one model."""
        outs = [np.empty_like(self.x[:rows]) for _ in range(threads)]
        start = threading.Barrier(threads + 1)

        def work(out: np.ndarray) -> None:
            x, model = self.x[:rows], self.model
            model.reconstruct_into(x, out)
            start.wait()
            for _ in range(calls):
                model.reconstruct_into(x, out)

        running = [threading.Thread(target=work, args=(out,)) for out in outs]
        for thread in running:
            thread.start()
        start.wait()
        began = time.perf_counter()
        for thread in running:
            thread.join()
        return time.perf_counter() - began

    def peak(self, seconds: float) -> float:
        return self.fv._core.measure_peak(1, seconds)


class Native(Python):
    """fusedvae inside the library: serving_loop.c over the C API. It also measures how fast the weights can be read."""

    weights = 0  # FVAE_PRECISION_FLOAT32

    def __init__(self, threads: int):
        super().__init__(threads)
        here = Path(__file__).parent.parent
        engine = Path(self.fv._core.__file__).resolve().parent
        library = min(path for path in engine.rglob("libfusedvae.*") if path.suffix in (".so", ".dylib"))
        self.folder = tempfile.TemporaryDirectory()
        loop = Path(self.folder.name) / "serving_loop.so"
        flags = ["-O3", "-march=native", "-shared", "-fPIC", f"-I{here.parent / 'csrc' / 'include'}"]
        source = [str(here / "serving_loop.c"), str(library), f"-Wl,-rpath,{library.parent}"]
        subprocess.run([os.environ.get("CC", "cc"), *flags, *source, "-o", str(loop)], check=True)
        self.native = ctypes.CDLL(str(loop))
        self.native.serve.restype = self.native.read_all.restype = ctypes.c_double

    def prepare(self, problem: Problem) -> None:
        super().prepare(problem)
        self.path = str(Path(self.folder.name) / "model.safetensors").encode()
        self.model.save(self.path.decode())

    def serve(self, rows: int, calls: int) -> float:
        x, out = (array.ctypes.data_as(ctypes.c_void_p) for array in (self.x, self.out))
        took = self.native.serve(self.path, self.weights, x, out, ctypes.c_int64(rows), ctypes.c_int64(calls))
        if took < 0:
            raise RuntimeError("serving_loop.c could not load or serve the model")
        return took

    def read(self, size: int, passes: int) -> float:
        """Seconds of reading `size` bytes so many times."""
        total = ctypes.c_float()
        took = self.native.read_all(ctypes.c_int64(size), ctypes.c_int64(passes), ctypes.byref(total))
        if took < 0:
            raise MemoryError(f"serving_loop.c could not have {size} bytes")
        return took


class NativeBfloat16(Native):
    """The same with weights held in bfloat16."""

    weights = 1  # FVAE_PRECISION_BFLOAT16


class OnnxRuntime:
    """ONNX Runtime over the same layers, inputs and outputs bound once."""

    def __init__(self, threads: int):
        import onnxruntime

        self.ort = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = self.options.inter_op_num_threads = threads

    def about(self) -> dict:
        import onnx

        return {"onnxruntime": self.ort.__version__, "onnx": onnx.__version__}

    def prepare(self, problem: Problem) -> None:
        from onnx import TensorProto, helper, numpy_helper

        values, nodes, reads = problem.parameters(), [], "x"
        names = [name for name in problem.layers() if name != "encoder_logvar"]
        for name in names:
            nodes.append(helper.make_node("Gemm", [reads, f"{name}.weight", f"{name}.bias"], [f"{name}.sum"], transB=1))
            reads = f"{name}.sum"
            if name[-1].isdigit():
                nodes.append(helper.make_node("Relu", [reads], [name]))
                reads = name
        kind = "Sigmoid" if problem.likelihood == "bernoulli" else "Identity"
        nodes.append(helper.make_node(kind, [reads], ["mean"]))
        graph = helper.make_graph(
            nodes,
            problem.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", problem.width])],
            [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", problem.width])],
            [
                numpy_helper.from_array(values[f"{n}.{part}"], f"{n}.{part}")
                for n in names
                for part in ("weight", "bias")
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        self.session = self.ort.InferenceSession(model.SerializeToString(), self.options, ["CPUExecutionProvider"])
        self.x = data(problem)
        self.out = np.empty_like(self.x)

    def output(self, rows: int) -> list[float]:
        self.serve(rows, 1)
        return self.out[:rows].ravel().tolist()

    def serve(self, rows: int, calls: int) -> float:
        binding = self.session.io_binding()
        for bind, name, array in ((binding.bind_input, "x", self.x), (binding.bind_output, "mean", self.out)):
            bind(name, "cpu", 0, np.float32, array[:rows].shape, array.ctypes.data)
        run = self.session.run_with_iobinding
        run(binding)
        return repeat(lambda: run(binding), calls)


class InferenceMode:
    """PyTorch's modules in inference mode."""

    def __init__(self, threads: int):
        import torch

        self.torch = torch
        torch.set_num_threads(threads)

    def about(self) -> dict:
        return {"torch": self.torch.__version__}

    def prepare(self, problem: Problem) -> None:
        nn, values, modules = self.torch.nn, problem.parameters(), []
        for name, (outs, ins) in problem.layers().items():
            if name == "encoder_logvar":
                continue
            layer = nn.Linear(ins, outs)
            layer.load_state_dict(
                {part: self.torch.from_numpy(values[f"{name}.{part}"]) for part in ("weight", "bias")}
            )
            modules += [layer, nn.ReLU()] if name[-1].isdigit() else [layer]
        if problem.likelihood == "bernoulli":
            modules.append(nn.Sigmoid())
        self.model = nn.Sequential(*modules).eval()
        self.x = self.torch.from_numpy(data(problem))

    def output(self, rows: int) -> list[float]:
        with self.torch.inference_mode():
            return self.model(self.x[:rows]).ravel().tolist()

    def serve(self, rows: int, calls: int) -> float:
        x, model = self.x[:rows], self.model
        with self.torch.inference_mode():
            model(x)
            return repeat(lambda: model(x), calls)
