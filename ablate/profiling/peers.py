"""The same architecture as other libraries run it, for `ablate bench --peers`."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate.models.loading import Logits
from ablate.quantization.onnx_export import onnx_bytes


class Peer(nn.Module):
    """A call of another library.

    Args:
        call: From an array of images (batch, 3, height, width), float32, to whatever it returns.
        file_bytes: The size of its model's file.
    """

    def __init__(self, call: Callable[[Any], Any], file_bytes: int) -> None:
        super().__init__()
        self.call, self.file_bytes = call, file_bytes
        self.register_buffer("device", torch.empty(0))

    def forward(self, pixels: Tensor) -> Tensor:
        self.call(pixels.numpy())
        return pixels  # only its time is asked for


def peers(
    packed: str | Path, twin: nn.Module, size: tuple[int, int], folder: str
) -> tuple[dict[str, nn.Module], list[str]]:
    """Build what other libraries make of a packed model, and of its twin in full precision.

    Args:
        packed: The folder of the packed model.
        twin: Of the same architecture, in float32 on the CPU.
        size: Of its images, (height, width).
        folder: Where files may be written.

    Returns:
        By name, onnxruntime and OpenVINO with the packed model's ONNX graph, onnxruntime with its own dynamic
        int8 of the twin, and torchao with its dynamic int8 of the twin, compiled. And the packages that are
        not installed.
    """
    found: dict[str, nn.Module] = {}
    missing = []
    graph = cache(partial(onnx_bytes, packed))
    builds: dict[str, Callable[[], dict[str, nn.Module]]] = {
        "onnxruntime": lambda: _onnxruntime(graph(), twin, size, folder),
        "openvino": lambda: _openvino(graph()),
        "torchao": lambda: _torchao(twin),
    }
    for package, build in builds.items():
        try:
            found |= build()
        except ImportError:
            missing.append(package)
    return found, missing


def _onnxruntime(graph: bytes, twin: nn.Module, size: tuple[int, int], folder: str) -> dict[str, nn.Module]:
    from onnxruntime import InferenceSession, SessionOptions
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()

    def peer(content: bytes) -> Peer:
        session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return Peer(lambda pixels: session.run(None, {name: pixels}), len(content))

    full, int8 = Path(folder) / "full.onnx", Path(folder) / "int8.onnx"
    batch = {"pixels": {0: torch.export.Dim("batch")}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own
        example = (torch.zeros(2, 3, *size),)
        torch.onnx.export(
            Logits(twin), example, full, dynamic_shapes=batch, external_data=False, verbose=False
        )
        with _unlogged():
            quantize_dynamic(full, int8, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    return {
        "onnxruntime, packed": peer(graph),
        "onnxruntime, its dynamic int8": peer(int8.read_bytes()),
    }


@contextmanager
def _unlogged() -> Iterator[None]:
    """Within the context the root logger prints nothing, and gets no handler that would repeat our log."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


def _openvino(graph: bytes) -> dict[str, nn.Module]:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = core.compile_model(core.read_model(graph), "CPU", options)
    return {"OpenVINO, packed": Peer(lambda pixels: model([pixels]), len(graph))}


def _torchao(twin: nn.Module) -> dict[str, nn.Module]:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy.deepcopy(twin)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    model.compile(dynamic=False, options={"freezing": True})
    return {"torchao, its dynamic int8, compiled": model}
