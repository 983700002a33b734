"""Folded networks as ONNX graphs of the standard operators, maps in NCHW.

Written operator by operator instead of converted from JAX's program: a converter
keeps JAX's NHWC layout, with a transposition around every convolution, and sees
depthwise convolutions as whatever they were spelled out to. Needs the package `onnx`.
"""

from typing import Any

import numpy as np
import onnx  # pyright: ignore[reportMissingImports]
from jaxtyping import Float
from onnx import (  # pyright: ignore[reportMissingImports]
    TensorProto,
    helper,
    numpy_helper,
)

from search_space.spec import Activation, Padding
from trainers.deploy import folding, saved
from trainers.networks.blocks import NetworkBlock
from trainers.networks.units import ClassifierUnit, PoolShortcut, SqueezeExciteUnit

OPSET = 17  # of 2022; every runtime of the last years reads it
_IR_VERSION = 8  # that opset's

INPUT, OUTPUT = "pixels", "logits"

_NCHW = (0, 3, 1, 2)
_RELU6 = (0.0, 6.0)


def graph(model: saved.Model) -> onnx.ModelProto:
    """Returns the graph of `model`, from pixels to logits, checked.

    `pixels`: float32 `[batch, resolution, resolution, channels]` from 0 to 255, the
    batch of any size. `logits`: float32 `[batch, classes]`.
    """
    spec, metadata = model.spec, model.metadata
    tape = _Tape()
    x = tape.op("Sub", INPUT, tape.constant(np.asarray(metadata.mean, np.float32)))
    x = tape.op("Div", x, tape.constant(np.asarray(metadata.std, np.float32)))
    x = tape.op("Transpose", x, perm=_NCHW)
    channels = spec.in_channels
    for block in folding.fold(model.network).blocks:
        x, channels = tape.block(x, channels, block)
    tape.nodes[-1].output[0] = OUTPUT
    shape = ["batch", spec.resolution, spec.resolution, spec.in_channels]
    proto = helper.make_model(
        helper.make_graph(
            tape.nodes,
            spec.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
            [
                helper.make_tensor_value_info(
                    OUTPUT, TensorProto.FLOAT, ["batch", spec.num_classes]
                )
            ],
            initializer=tape.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        doc_string=metadata.weights,
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


class _Tape:
    """Collects nodes and constants; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.constants)}"
        array = np.ascontiguousarray(values)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"x{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=output, **attributes)
        )
        return output

    def block(self, x: str, channels: int, block: NetworkBlock) -> tuple[str, int]:
        """Appends a block; returns its output and how many channels that has."""
        added, in_channels = None, channels
        if block.skip:
            added = x
            if block.shortcut is not None:
                added, _ = self.unit(x, in_channels, block.shortcut, None)
        *units, last = block.units
        for unit in units:
            x, channels = self.unit(x, channels, unit, None)
        return self.unit(x, channels, last, added)

    def unit(
        self, x: str, channels: int, unit: object, added: str | None
    ) -> tuple[str, int]:
        activation_after: Activation | None = None
        match unit:
            case folding.FoldedConv():
                x, channels = self.conv(x, unit), _array(unit.kernel).shape[-1]
                activation_after = unit.activation_after
            case folding.FoldedDepthwise():
                x = self.depthwise(x, unit)
            case SqueezeExciteUnit():
                x = self.squeeze_excite(x, unit)
            case PoolShortcut():
                x, channels = self.pool_shortcut(x, channels, unit), unit.out_channels
            case ClassifierUnit():
                x = self.op("Flatten", self.op("GlobalAveragePool", x))
                kernel, bias = map(_array, (unit.kernel, unit.bias))
                x = self.op("Gemm", x, self.constant(kernel), self.constant(bias))
            case _:
                raise TypeError(f"a folded network has no {type(unit).__name__}")
        if added is not None:
            x = self.op("Add", x, added)
        return self.activation(x, activation_after), channels

    def conv(self, x: str, unit: folding.FoldedConv) -> str:
        kernel = _array(unit.kernel).transpose(3, 2, 0, 1)
        x = self.op(
            "Conv",
            x,
            self.constant(kernel),
            self.constant(_array(unit.bias)),
            **_window(len(_array(unit.kernel)), unit.stride, unit.padding),
        )
        x = self.activation(x, unit.activation)
        if unit.max_pool is None:
            return x
        return self.op("MaxPool", x, **_window(*unit.max_pool, unit.padding))

    def depthwise(self, x: str, unit: folding.FoldedDepthwise) -> str:
        kernel = _array(unit.kernel).transpose(2, 0, 1)[:, np.newaxis]
        x = self.op(
            "Conv",
            x,
            self.constant(kernel),
            self.constant(_array(unit.bias)),
            group=len(kernel),
            **_window(len(_array(unit.kernel)), unit.stride, unit.padding),
        )
        return self.activation(x, unit.activation)

    def squeeze_excite(self, x: str, unit: SqueezeExciteUnit) -> str:
        gate = self.op("GlobalAveragePool", x)
        gate = self.dense(gate, _array(unit.reduce), _array(unit.reduce_bias))
        gate = self.activation(gate, unit.activation)
        gate = self.dense(gate, _array(unit.expand), _array(unit.expand_bias))
        return self.op("Mul", x, self.op("Sigmoid", gate))

    def dense(
        self, x: str, kernel: Float[np.ndarray, "in out"], bias: np.ndarray
    ) -> str:
        kernel = kernel.T[:, :, np.newaxis, np.newaxis]
        return self.op("Conv", x, self.constant(kernel), self.constant(bias))

    def pool_shortcut(self, x: str, channels: int, unit: PoolShortcut) -> str:
        if unit.stride > 1:
            window = _window(unit.stride, unit.stride, "same")
            x = self.op("AveragePool", x, count_include_pad=0, **window)
        missing = unit.out_channels - channels
        if missing > 0:
            pads = np.asarray([0, 0, 0, 0, 0, missing, 0, 0], np.int64)
            return self.op("Pad", x, self.constant(pads))
        if missing < 0:
            start_end_axis = [
                self.constant(np.asarray([value], np.int64))
                for value in (0, unit.out_channels, 1)
            ]
            return self.op("Slice", x, *start_end_axis)
        return x

    def activation(self, x: str, activation: Activation | None) -> str:
        match activation:
            case None:
                return x
            case "relu":
                return self.op("Relu", x)
            case "relu6":
                limits = [self.constant(np.asarray(v, np.float32)) for v in _RELU6]
                return self.op("Clip", x, *limits)
            case "swish":
                return self.op("Mul", x, self.op("Sigmoid", x))


def _window(kernel: int, stride: int, padding: Padding) -> dict[str, list[int] | str]:
    pads: dict[str, list[int] | str] = (
        {"auto_pad": "SAME_UPPER"}  # the odd pixel of padding goes to the end
        if padding == "same"
        else {"pads": [kernel // 2] * 4}
    )
    return {"kernel_shape": [kernel, kernel], "strides": [stride, stride], **pads}


def _array(variable: saved.Variable) -> np.ndarray:
    return np.asarray(variable[...])
