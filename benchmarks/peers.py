"""The peers of `benchmarks/packed.py`: the same ViT-B/16, quantized and run by other libraries."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

Run = Callable[[Tensor], object]
CALIBRATION = 32  # images of noise: only times are compared


def vit(attention: str = "sdpa") -> nn.Module:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(num_labels=10, attn_implementation=attention)).eval()


def compiled(model: nn.Module) -> Run:
    return torch.compile(
        model, dynamic=False, isolate_recompiles=True, options={"freezing": True}
    )  # for each batch size by itself


def torchao() -> dict[str, Run]:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig
    from torchao.quantization import quantize_ as torchao_quantize_

    model, half = vit(), vit().bfloat16()
    for each in (model, half):
        torchao_quantize_(each.vit.layers, Int8DynamicActivationInt8WeightConfig())
    compiled_half = compiled(half)
    return {
        "torchao int8, compiled": compiled(model),
        "torchao int8, bf16, compiled": lambda x: compiled_half(x.bfloat16()),
    }


def onnxruntime(folder: str, threads: int) -> dict[str, Run]:
    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic

    full, small = f"{folder}/vit.onnx", f"{folder}/vit-int8.onnx"
    shapes = {"pixel_values": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        vit("eager"),
        (torch.randn(2, 3, 224, 224),),
        full,
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )
    quantize_dynamic(full, small, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(small, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {"onnxruntime int8": lambda x: session.run(None, {name: x.numpy()})}


def openvino(folder: str, threads: int) -> dict[str, Run]:
    """int8 with static scales by NNCF, and bfloat16, both for one stream of images."""
    import nncf
    import openvino as ov

    found: dict[str, Run] = {}
    for name in ("openvino int8", "openvino bf16"):
        model = ov.convert_model(f"{folder}/vit.onnx")
        if "int8" in name:
            images = [torch.randn(1, 3, 224, 224).numpy() for _ in range(CALIBRATION)]
            model = nncf.quantize(model, nncf.Dataset(images), model_type=nncf.ModelType.TRANSFORMER)
        precision = ov.Type.bf16 if "bf16" in name else ov.Type.f32
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        compiled_model = ov.compile_model(model, "CPU", options)
        found[name] = lambda x, run=compiled_model: run([x.numpy()])
    return found
