"""Stores the constants of an ONNX graph in few bits, with nodes that unpack them when a file is loaded."""

from itertools import count

import onnx_ir as ir
import torch
from onnx_ir.convenience import replace_all_uses_with
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnx_ir.tape import Tape
from onnx_ir.tensor_adapters import TorchTensor
from torch import Tensor

from ablate.config.precisions import PER_BYTE
from ablate.quantization.bit_packing import pack_levels, unpack_levels

SMALLEST = 512  # bytes of a constant: the nodes that unpack a smaller one take more than they save


def pack_constants(model: ir.Model, dtype: torch.dtype) -> None:
    """Store the constants of a model in the fewest bits that hold their values; no value changes.

    A matrix of integers becomes the bytes that `pack_levels` makes of it, and a `Gather` from the table of
    what each byte holds. Others in float32 become `dtype`, where that is exact. These nodes depend on nothing
    but constants: a runtime computes them once, when it loads the file.

    Args:
        model: Changed in place.
        dtype: Of the packed model's tensors in floating point.
    """
    graph, tape = model.graph, Tape(model.graph)
    for value in [*graph.initializers.values()]:
        floats = value.dtype == ir.DataType.FLOAT
        if not (floats or value.dtype == ir.DataType.INT8) or value.const_value.nbytes < SMALLEST:
            continue
        constant = torch.tensor(value.const_value.numpy())
        levels, narrow = constant.to(torch.int8), constant.to(dtype)
        if constant.ndim == 2 and (levels.to(constant.dtype) == constant).all():
            stored = _levels(tape, levels, value.name)
        elif floats and dtype != torch.float32 and (narrow.float() == constant).all():
            stored = tape.initializer(TorchTensor(narrow, f"{value.name}.stored"))
        else:
            continue
        replace_all_uses_with(value, tape.op("Cast", [stored], {"to": value.dtype}) if floats else stored)
        del graph.initializers[value.name]
    graph.sort()


def shorten(model: ir.Model) -> None:
    """Drop what no reader needs: names of nodes, where they come from, and long names of what they compute.

    The names of the weights stay, without the "model." of `Logits`.

    Args:
        model: Changed in place.
    """
    ClearMetadataAndDocStringPass()(model)
    numbers = map(str, count())
    for value in [*model.graph.initializers.values()]:
        value.name = value.name.removeprefix("model.") if value.shape else next(numbers)
    for node in model.graph:
        node.name = ""
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = next(numbers)


def _levels(tape: Tape, levels: Tensor, name: str) -> ir.Value:
    """Nodes that unpack int8 levels (rows, columns)."""
    rows, columns = levels.shape
    for weights in ("binary", "ternary", "int4"):  # from the fewest bits on
        packed = pack_levels(levels, weights)
        if unpack_levels(packed, weights, (rows, columns)).equal(levels):
            break
    else:
        return tape.initializer(TorchTensor(levels, f"{name}.stored"))
    per_byte = PER_BYTE[weights]
    every_byte = torch.arange(256 if weights != "ternary" else 3**5, dtype=torch.uint8)
    levels_of = unpack_levels(every_byte, weights, (len(every_byte), per_byte))
    table = _shared(tape, levels_of, f"{weights}.levels")
    stored = tape.initializer(TorchTensor(packed, f"{name}.packed"))
    index = tape.op("Cast", [stored], {"to": ir.DataType.INT32})
    values = tape.op("Gather", [table, index])  # (bytes, per_byte)
    if levels.numel() % per_byte:  # the last byte is filled up
        flat = tape.op("Reshape", [values, _integers(tape, -1)])
        values = tape.op("Slice", [flat, _integers(tape, 0), _integers(tape, levels.numel())])
    return tape.op("Reshape", [values, _integers(tape, rows, columns)])


def _integers(tape: Tape, *values: int) -> ir.Value:
    return _shared(tape, torch.tensor(values), f"integers.{'_'.join(map(str, values))}")


def _shared(tape: Tape, tensor: Tensor, name: str) -> ir.Value:
    known = {value.name: value for value in tape.initializers}
    return known.get(name) or tape.initializer(TorchTensor(tensor, name))
