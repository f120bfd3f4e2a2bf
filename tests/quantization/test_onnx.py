"""The packed model in files of other runtimes: the same logits, from weights that stay packed on disk."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnx_ir.serde import serialize_model
from safetensors.torch import load_file

from ablate import LayerSpec, calibrate_, load_packed, pack, quantize_
from ablate.data import datasets
from ablate.models import checkpoints, loading
from ablate.quantization import openvino_export
from ablate.quantization.onnx_constants import pack_constants
from ablate.quantization.onnx_export import to_onnx
from ablate.quantization.packed_loading import load_preprocess

LAYERS = {  # four layers of attention in a block, and two of its MLP
    "vit.layers.0.attention*": LayerSpec(weights="ternary", beta_per="channel", activation_scale="static"),
    "vit.layers.0.mlp*": LayerSpec(weights="int4", activation_bits=1, norm=True),
    "vit.layers.1.attention.[qk]*": LayerSpec(weights="int8", signed=False, activation_scale="tensor"),
    "vit.layers.1.attention.[vo]*": LayerSpec(
        weights="int8", signed=False, activation_scale="static", activation_bits=6
    ),
    "vit.layers.1.mlp*": LayerSpec(weights="binary", activation_bits=None),
}
PRODUCTS = 4 + 2 + 2 * 4  # of integers: int8 weights are the sum of two halves


def cifar_images():
    images = datasets.load("cifar10-mini").test.images[::50]
    return images.transpose(0, 3, 1, 2).copy()  # (B, H, W, 3) -> (B, 3, H, W)


@pytest.fixture(scope="module")
def exported(tiny_vit, tmp_path_factory):
    """The folder of a packed model, its model.onnx beside it."""
    folder = tmp_path_factory.mktemp("packed")
    model, preprocess = checkpoints.load(str(tiny_vit), datasets.CIFAR10), loading.preprocess(str(tiny_vit))
    quantize_(model, LAYERS)
    calibrate_(model, preprocess(torch.from_numpy(cifar_images())))
    pack(model, folder, preprocess=preprocess, dtype="float16")
    to_onnx(folder, folder / "model.onnx")
    return folder


def check_logits(folder, run):
    """A float sum in another order flips a level, no more; in batches of any size."""
    pixels = load_preprocess(folder)(torch.from_numpy(cifar_images()))
    with torch.inference_mode():
        ours = load_packed(folder)(pixels).logits.numpy()
    theirs = run(pixels.numpy())
    assert np.linalg.norm(theirs - ours) < 0.02 * np.linalg.norm(ours)
    assert (theirs.argmax(1) == ours.argmax(1)).mean() >= 0.9
    np.testing.assert_allclose(run(pixels[:1].numpy()), theirs[:1], atol=1e-4)


def tensors_of(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.long
def test_onnxruntime_computes_what_the_packed_model_does(exported):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(exported / "folded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = onnxruntime.InferenceSession(exported / "model.onnx", options, ["CPUExecutionProvider"])
    check_logits(exported, lambda pixels: session.run(None, {"pixels": pixels})[0])
    operators = [node.op_type for node in onnx.load(exported / "folded.onnx").graph.node]
    assert operators.count("MatMulIntegerToFloat") == PRODUCTS
    weights = [tensor for tensor in tensors_of(exported / "folded.onnx").values() if tensor.dtype == np.int8]
    levels = [tensor for tensor in weights if tensor.ndim == 2]
    assert len(levels) == PRODUCTS  # unpacked once, on loading
    assert (
        max(np.abs(part.astype(int)).max() for part in levels) <= 64
    )  # so that no pair of products overflows


@pytest.mark.long
def test_the_file_has_the_bytes_of_the_packed_model(exported):
    tensors = tensors_of(exported / "model.onnx")
    packed = load_file(exported / "model.safetensors")
    few_bits = [
        name
        for name in packed
        if f"{name.removesuffix('weight')}beta" in packed and "layers.1.attention" not in name
    ]
    stored = [tensor.nbytes for name, tensor in tensors.items() if name.endswith(".packed")]
    assert len(few_bits) == 8 and sorted(stored) == sorted(packed[name].nbytes for name in few_bits)
    large = {tensor.dtype for tensor in tensors.values() if tensor.nbytes >= 1024}
    assert np.dtype(np.float16) in large and np.dtype(np.float32) not in large


@pytest.mark.long
def test_openvino_computes_what_the_packed_model_does(exported, monkeypatch):
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino_export, "onnx_bytes", lambda folder: (folder / "model.onnx").read_bytes())
    openvino_export.to_openvino(exported, exported / "model.xml")
    assert (exported / "model.bin").stat().st_size < (exported / "model.onnx").stat().st_size
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(exported / "model.xml", "CPU", exact)
    check_logits(exported, lambda pixels: compiled(pixels)[0])
    ran = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    products = [node for node in ran if node["layerType"].astype(str) == "FullyConnected"]
    assert sum(node["runtimePrecision"].astype(str) == "u8" for node in products) == PRODUCTS


@pytest.mark.parametrize(
    ("values", "dtype", "stored"),
    [
        (torch.tensor([[-1, 1, 1], [1, -1, 1]]).repeat(99, 3).char(), "float32", 2 * 99 * 9 / 8),
        (torch.tensor([[-1, 0, 1]]).repeat(199, 3).char(), "float32", 199 * 9 / 5),
        (torch.arange(-7, 8).repeat(67, 1).char(), "float32", 67 * 15 / 2),
        (torch.arange(-127, 128).repeat(3, 1).char(), "float32", 3 * 255),
        (torch.tensor([[-1.0, 0, 1]]).repeat(199, 3), "float32", 199 * 9 / 5),
        (torch.arange(256) / 256, "float16", 512),
        (torch.arange(256) / 256, "bfloat16", 512),
        (torch.arange(256) / 3, "float16", 1024),
        (torch.arange(256) / 256, "float32", 1024),
        (torch.tensor([-1, 1]).repeat(10, 1).char(), "float32", 20),
    ],
)
def test_constants_take_the_bits_that_they_need(values, dtype, stored):
    constant = ir.Value(
        name="constant",
        type=ir.TensorType(ir.DataType.FLOAT if values.is_floating_point() else ir.DataType.INT8),
        shape=ir.Shape(values.shape),
        const_value=ir.tensor(values.numpy(), name="constant"),
    )
    node = ir.node("Identity", [constant])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "out", constant.type, constant.shape
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[constant], opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    pack_constants(model, getattr(torch, dtype))
    sizes = [value.const_value.nbytes for value in graph.initializers.values()]
    assert int(np.ceil(stored)) in sizes and max(sizes) <= max(stored, 2**11) + 1
    proto = serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    (unpacked,) = session.run(None, {})
    np.testing.assert_array_equal(unpacked, values.numpy(), strict=True)
