"""The packed model in OpenVINO's own format."""

from pathlib import Path

from ablate.errors import BadInput
from ablate.paths import local_path
from ablate.quantization.onnx_export import onnx_bytes


def to_openvino(directory: str | Path, path: str | Path) -> None:
    """Write a packed model as OpenVINO's pair of files: the graph, and beside it its constants.

    It is the graph of `to_onnx`. Its weights stay packed, and OpenVINO unpacks them when it compiles the
    model. On CPUs that have bfloat16 it computes in that, unless INFERENCE_PRECISION_HINT is "f32".

    Args:
        directory: The folder of the packed model.
        path: Of the graph, an .xml file. The constants go to the .bin file of the same name.

    Raises:
        BadInput: The packages of the extra `openvino` are not installed, or the folder holds no packed model.
    """
    try:
        import openvino
    except ImportError:
        advice = "pip install openvino onnx onnxscript"
        raise BadInput(f"OpenVINO needs the extra ablate-vit[openvino]; {advice}") from None

    model = openvino.Core().read_model(onnx_bytes(directory))
    openvino.save_model(model, local_path(path), compress_to_fp16=False)
