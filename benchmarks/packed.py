"""The packed ViT-B/16 beside its alternatives: latency on this CPU, file size, memory, effect of bfloat16.

    pip install torchao onnx onnxruntime onnxscript      the peers; without them their rows are left out
    python benchmarks/packed.py [--threads 2] [--rounds 15]

All encoder layers are binary, 224 px, random weights. The variants take turns within each round, so that
other load on the machine meets them all alike; medians. Takes about ten minutes and writes
results/packed-<cpu>-<torch>.json.
"""

import argparse
import copy
import json
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from ablate import LayerSpec, load_packed, pack, quantize_
from ablate.config.trial_spec import Recipe
from ablate.data import datasets
from ablate.hardware import device_name
from ablate.models import checkpoints, loading
from ablate.profiling.bench import memory_bytes
from ablate.quantization.bit_packing import pack_levels, unpack_levels
from ablate.quantization.integer_linear import IntegerLinear
from ablate.training.trainer import evaluate, train

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "torchao", "onnxruntime", "onnxscript")
Run = Callable[[Tensor], object]


def vit(attention: str = "sdpa") -> nn.Module:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(num_labels=10, attn_implementation=attention)).eval()


class PackedInMemory(nn.Module):
    """The alternative to IntegerLinear's int8 weights: a bit a weight in memory, unpacked in every call."""

    def __init__(self, layer: IntegerLinear) -> None:
        super().__init__()
        self.shape = tuple(layer.levels.shape)
        self.register_buffer("packed", pack_levels(layer.levels, layer.spec.weights))
        layer.levels = torch.empty(0)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        self.layer.levels = unpack_levels(self.packed, self.layer.spec.weights, self.shape)
        y = self.layer(x)
        self.layer.levels = torch.empty(0)
        return y


def compiled(model: nn.Module) -> Run:
    return torch.compile(model, dynamic=False, options={"freezing": True})  # for each batch size by itself


def bfloat16(run: Run) -> Run:
    def with_autocast(x: Tensor) -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return run(x)

    return with_autocast


def ours(folder: str) -> tuple[dict[str, Run], dict[str, int]]:
    """Variants of the packed model, and the bytes of the tensors that they hold in memory."""
    model, plain = load_packed(folder), load_packed(folder)
    plain.config._attn_implementation = "eager"  # bfloat16 attention is faster through plain matrix products
    kept = load_packed(folder)
    for name, layer in list(kept.named_modules()):
        if isinstance(layer, IntegerLinear):
            parent, _, child = name.rpartition(".")
            setattr(kept.get_submodule(parent), child, PackedInMemory(layer))
    runs = {
        "ours": model,
        "ours, unpacked in every call": kept,
        "ours, compiled": compiled(model),
        "ours, bf16 around the integers, compiled": bfloat16(compiled(plain)),
    }
    return runs, {
        "ours": memory_bytes(model),
        "ours, unpacked in every call": memory_bytes(kept),
        "fp32": memory_bytes(vit()),
    }


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


def latencies(runs: dict[str, Run], batch: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of each variant, one call of each a round after an untimed one."""
    pixels = torch.randn(batch, 3, 224, 224)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 2):  # the first two compile and warm up
        for name, run in runs.items():
            run(pixels)
            started = time.perf_counter()
            run(pixels)
            if i >= 2:
                times[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def effect() -> dict[str, dict[str, float]]:
    """What bfloat16 changes in a trained vit-micro with a binary encoder, on cifar10-mini's test images."""
    dataset, preprocess = datasets.load("cifar10-mini"), loading.preprocess("vit-micro")
    model = checkpoints.load("vit-micro", dataset.classes)
    quantize_(model, {"vit.layers.*": LayerSpec(weights="binary")})
    for _ in train(model, dataset.train, dataset.validation, Recipe(epochs=2, bf16=True), preprocess, seed=0):
        pass
    with tempfile.TemporaryDirectory() as folder:
        pack(model, folder)
        packed = load_packed(folder)
    reference = evaluate(model, dataset.test, preprocess)
    found = {}
    half = copy.deepcopy(packed)
    half.forward = bfloat16(half.forward)
    for name, variant in {"ours": packed, "ours, bf16": half}.items():
        logits = torch.from_numpy(evaluate(variant, dataset.test, preprocess).logits)
        expected = torch.from_numpy(reference.logits)
        found[name] = {
            "accuracy": (logits.argmax(1) == torch.from_numpy(dataset.test.labels)).double().mean().item(),
            "same_class": (logits.argmax(1) == expected.argmax(1)).double().mean().item(),
            "relative_error": ((logits - expected).norm() / expected.norm()).item(),
        }
    return {
        "evaluation forward": {"accuracy": reference.accuracy, "same_class": 1.0, "relative_error": 0.0},
        **found,
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {
        "cpu": device_name(),
        "capabilities": sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True),
        "threads": args.threads,
        "rounds": args.rounds,
        "seed": 0,
        "python": platform.python_version(),
    }
    result |= {"versions": {package: installed(package) for package in PACKAGES}}
    with tempfile.TemporaryDirectory() as folder:
        full, half = vit(), vit("eager").bfloat16()
        model = vit()
        quantize_(model, {"vit.layers.*": LayerSpec(weights="binary")})
        result["size_bytes"] = {"fp32": pack(full, f"{folder}/full"), "ours": pack(model, f"{folder}/ours")}
        runs: dict[str, Run] = {"fp32": full, "bf16": lambda x: half(x.bfloat16())}
        mine, result["memory_bytes"] = ours(f"{folder}/ours")
        runs |= mine
        for peer, build in {
            "torchao": torchao,
            "onnxruntime": lambda: onnxruntime(folder, args.threads),
        }.items():
            try:
                runs |= build()
            except ImportError as error:
                print(f"{peer} is left out: {error}; pip install torchao onnx onnxruntime onnxscript")
        result["latency_ms"] = {}
        with torch.inference_mode():
            for batch in (1, 8):
                found = latencies(runs, batch, args.rounds)
                result["latency_ms"][str(batch)] = found
                print(f"\nbatch {batch}, {args.threads} threads, median of {args.rounds}")
                for name, ms in found.items():
                    print(f"{name:42s} {ms:8.1f} ms {found['fp32'] / ms:6.2f}x", flush=True)
    result["effect"] = effect()
    for kind in ("size_bytes", "memory_bytes", "effect"):
        print(f"\n{kind}", *(f"{name:42s} {value}" for name, value in result[kind].items()), sep="\n")
    slug = re.sub(r"[^a-z0-9]+", "-", str(result["cpu"]).lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"packed-{slug}-{version('torch')}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
