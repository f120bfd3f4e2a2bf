"""The packed model as ONNX, its integer products as MatMulInteger, for onnxruntime and other readers."""

import warnings
from pathlib import Path
from typing import Any

import torch

from ablate.errors import BadInput
from ablate.models.loading import Logits
from ablate.paths import local_path
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.packed_model import load_packed, load_preprocess


def to_onnx(directory: str | Path, path: str | Path) -> None:
    """Write a packed model as an ONNX file.

    Its input is `pixels` (batch, 3, height, width), float32, and its output `logits` (batch, classes).
    Weights are stored at a byte each: ONNX has no narrower type that MatMulInteger takes.

    Args:
        directory: The folder of the packed model.
        path: Of the ONNX file.

    Raises:
        BadInput: The packages of the extra `onnx` are not installed, or the folder holds no packed model.
    """
    try:
        from onnxscript import opset18 as op
    except ImportError:
        advice = "pip install onnx onnxruntime onnxscript"
        raise BadInput(f"ONNX needs the extra ablate-vit[onnx]; {advice}") from None

    def int_mm(a: Any, b: Any) -> Any:
        return op.MatMulInteger(a, b)

    model = Logits(load_packed(directory)).eval()
    for layer in model.modules():
        if isinstance(layer, IntegerLinear):
            layer.floats = False  # the file holds integers, whatever is faster on this machine
    pixels = torch.zeros(2, 3, *load_preprocess(directory).size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            model,
            (pixels,),
            str(local_path(path)),
            dynamo=True,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            custom_translation_table={torch.ops.aten._int_mm.default: int_mm},
            external_data=False,
            verbose=False,
        )
