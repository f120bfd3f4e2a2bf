"""The same architecture as other libraries run it, for `ablate bench --peers`."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate.models.loading import Logits
from ablate.quantization.onnx_export import onnx_bytes

CALIBRATION = 8  # images


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
        int8 of the twin, OpenVINO with NNCF's static int8 of it, and torchao with its dynamic int8 of it,
        compiled. And the packages that are not installed.
    """
    found: dict[str, nn.Module] = {}
    missing = []
    graph = cache(partial(onnx_bytes, packed))
    builds: dict[str, Callable[[], dict[str, nn.Module]]] = {
        "onnxruntime": lambda: _onnxruntime(graph(), twin, size, folder),
        "openvino": lambda: _openvino(graph()),
        "nncf": lambda: _nncf(twin, size, folder),
        "torchao": lambda: _torchao(twin),
    }
    for package, build in builds.items():
        try:
            found |= build()
        except ImportError:
            missing.append(package)
    return found, missing


def _full_graph(twin: nn.Module, size: tuple[int, int], folder: str) -> Path:
    """The ONNX file of the twin, in float32, for any batch."""
    path = Path(folder) / "full.onnx"
    if not path.exists():
        batch = {"pixels": {0: torch.export.Dim("batch")}}
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own
            example = (torch.zeros(2, 3, *size),)
            torch.onnx.export(
                Logits(twin), example, path, dynamic_shapes=batch, external_data=False, verbose=False
            )
    return path


def _onnxruntime(graph: bytes, twin: nn.Module, size: tuple[int, int], folder: str) -> dict[str, nn.Module]:
    from onnxruntime import InferenceSession, SessionOptions
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()

    def peer(content: bytes) -> Peer:
        session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return Peer(lambda pixels: session.run(None, {name: pixels}), len(content))

    full, int8 = _full_graph(twin, size, folder), Path(folder) / "int8.onnx"
    with warnings.catch_warnings(), _unlogged():
        warnings.simplefilter("ignore")
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

    model = openvino.Core().read_model(graph)
    return {"OpenVINO, packed": _openvino_peer(model, len(graph))}


def _nncf(twin: nn.Module, size: tuple[int, int], folder: str) -> dict[str, nn.Module]:
    import openvino

    with warnings.catch_warnings(), _unlogged(), redirect_stdout(StringIO()):  # its progress
        warnings.simplefilter("ignore")
        import nncf

        full = openvino.Core().read_model(_full_graph(twin, size, folder))
        images = torch.randn(CALIBRATION, 1, 3, *size).numpy()  # any will do: only the time is asked for
        options = {"subset_size": CALIBRATION, "model_type": nncf.ModelType.TRANSFORMER}
        model = nncf.quantize(full, nncf.Dataset(images), **options)
        int8 = Path(folder) / "int8.xml"
        openvino.save_model(model, int8)
    return {"OpenVINO, NNCF's static int8": _openvino_peer(model, int8.with_suffix(".bin").stat().st_size)}


def _openvino_peer(model: Any, file_bytes: int) -> Peer:
    import openvino

    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    return Peer(lambda pixels: compiled([pixels]), file_bytes)


def _torchao(twin: nn.Module) -> dict[str, nn.Module]:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy.deepcopy(twin)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    model.compile(dynamic=False, options={"freezing": True})
    return {"torchao, its dynamic int8, compiled": model}
