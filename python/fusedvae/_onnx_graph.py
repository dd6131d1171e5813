# SPDX-License-Identifier: MIT
"""The building of one ONNX graph, its nodes and constants, and the activations as operator set 17 has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

try:
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise ImportError('fusedvae.to_onnx needs onnx: pip install "fusedvae[onnx]"') from error

OPSET = 17
FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


class Graph:
    """Nodes and constants; a value is the name of what a node gives."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def add(self, operator: str, *values: str, **attributes: Any) -> str:
        """A node's only result."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, values, [name], name=name, **attributes))
        return name

    def constant(self, values: Any, name: str | None = None) -> str:
        """An array as it is, a float as float32, an integer as int64."""
        name = name or f"constant_{len(self.constants)}"
        if name not in self.constants:
            array = np.asarray(values, dtype=np.float32 if isinstance(values, float) else None)
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def input(self, name: str, shape: Sequence[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, FLOAT, shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self.outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))

    def times(self, value: str, factor: float) -> str:
        return self.add("Mul", value, self.constant(float(factor)))

    def plus(self, value: str, term: float) -> str:
        return self.add("Add", value, self.constant(float(term)))

    def total(self, value: str, axis: int) -> str:
        return self.add("ReduceSum", value, self.constant([axis]), keepdims=0)

    def shaped(self, value: str, shape: Sequence[int]) -> str:
        """0 keeps the extent that is there, -1 takes what the others leave."""
        return self.add("Reshape", value, self.constant(list(shape)))

    def to_model(self, name: str, version: str, metadata: dict[str, str]) -> Any:
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),  # the newest is more than older runtimes read
            producer_name="fusedvae",
            producer_version=version,
        )
        helper.set_model_props(model, metadata)
        return model


def _gelu(graph: Graph, x: str) -> str:
    # exact; the operator of its own came with set 20
    return graph.add("Mul", x, graph.plus(graph.times(graph.add("Erf", graph.times(x, math.sqrt(0.5))), 0.5), 0.5))


ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "identity": lambda graph, x: x,
    "relu": lambda graph, x: graph.add("Relu", x),
    "leaky_relu": lambda graph, x: graph.add("LeakyRelu", x, alpha=0.01),
    "elu": lambda graph, x: graph.add("Elu", x),
    "gelu": _gelu,
    "silu": lambda graph, x: graph.add("Mul", x, graph.add("Sigmoid", x)),
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "sigmoid": lambda graph, x: graph.add("Sigmoid", x),
    "softplus": lambda graph, x: graph.add("Softplus", x),
}
