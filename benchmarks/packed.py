"""The packed ViT-B/16 beside its alternatives: latency on this CPU, file size, memory, effect of bfloat16.

    pip install torchao onnx onnxruntime onnxscript openvino nncf    the peers, else their rows are left out
    python benchmarks/packed.py [--threads 2] [--rounds 15]

All encoder layers are binary, 224 px, random weights. The variants take turns within each round, so that
other load on the machine meets them all alike; medians. Takes about ten minutes and writes
results/packed-<processor>-<torch>.json.
"""

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from peers import Run, compiled, onnxruntime, openvino, torchao, vit
from setting import processor
from torch import Tensor, nn

from ablate import LayerSpec, calibrate_, load_packed, pack, quantize_
from ablate.config.trial_spec import Recipe
from ablate.data import datasets
from ablate.hardware import device_name
from ablate.models import checkpoints, loading
from ablate.profiling.memory import memory_bytes
from ablate.quantization.bit_packing import pack_levels, unpack_levels
from ablate.quantization.integer_linear import IntegerLinear
from ablate.training.evaluation import evaluate
from ablate.training.trainer import train

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "torchao", "onnxruntime", "onnxscript", "openvino", "nncf")


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
        "ours, exact=False": load_packed(folder, exact=False),
        "ours, unpacked in every call": kept,
        "ours, compiled": compiled(model),
        "ours, bf16 around the integers, compiled": bfloat16(compiled(plain)),
    }
    return runs, {
        "ours": memory_bytes(model),
        "ours, unpacked in every call": memory_bytes(kept),
        "fp32": memory_bytes(vit()),
    }


def bare_products(x: Tensor) -> None:
    """The integer products of the encoder of a ViT-B/16 for so many images, and nothing else."""
    for outputs, inputs in ((2304, 768), (768, 768), (3072, 768), (768, 3072)):
        levels = torch.ones((197 * len(x), inputs), dtype=torch.int8)
        weights = torch.ones((outputs, inputs), dtype=torch.int8).t()
        for _ in range(12):
            torch._int_mm(levels, weights)


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


def effect(spec: LayerSpec) -> dict[str, dict[str, float]]:
    """What bfloat16 changes in a vit-micro-200ep with a quantized encoder, of cifar10-mini."""
    dataset, preprocess = datasets.load("cifar10-mini"), loading.preprocess("vit-micro-200ep")
    model = checkpoints.load("vit-micro-200ep", dataset.classes)
    quantize_(model, {"vit.layers.*": spec})
    for _ in train(model, dataset.train, dataset.validation, Recipe(epochs=2, bf16=True), preprocess, seed=0):
        pass
    with tempfile.TemporaryDirectory() as folder:
        pack(model, folder)
        packed, fast = load_packed(folder), load_packed(folder, exact=False)
    reference = evaluate(model, dataset.test, preprocess)
    found = {}
    half = copy.deepcopy(packed)
    half.forward = bfloat16(half.forward)
    variants = {"ours": packed, "ours, bf16 around the integers": half, "ours, exact=False": fast}
    for name, variant in variants.items():
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
        half_compiled = compiled(half)
        runs: dict[str, Run] = {
            "fp32": full,
            "fp32, compiled": compiled(vit()),
            "bf16": lambda x: half(x.bfloat16()),
            "bf16, compiled": lambda x: half_compiled(x.bfloat16()),
            "the encoder's products alone": bare_products,
        }
        for name, fields in {
            "ours with int8 weights, exact=False": {"weights": "int8"},
            "ours with static scales, exact=False": {"weights": "binary", "activation_scale": "static"},
        }.items():
            other = vit()
            quantize_(other, {"vit.layers.*": LayerSpec(**fields)})
            calibrate_(other, torch.randn(8, 3, 224, 224))
            pack(other, f"{folder}/{name}")
            runs[name] = load_packed(f"{folder}/{name}", exact=False)
        mine, result["memory_bytes"] = ours(f"{folder}/ours")
        runs |= mine
        for peer, build in {
            "torchao": torchao,
            "onnxruntime": lambda: onnxruntime(folder, args.threads),
            "openvino": lambda: openvino(folder, args.threads),
        }.items():
            try:
                runs |= build()
            except ImportError as error:
                print(f"{peer} is left out: {error}; pip install as the first lines of this file say")
        result["latency_ms"] = {}
        with torch.inference_mode():
            for batch in (1, 8):
                found = latencies(runs, batch, args.rounds)
                result["latency_ms"][str(batch)] = found
                print(f"\nbatch {batch}, {args.threads} threads, median of {args.rounds}")
                for name, ms in found.items():
                    print(f"{name:42s} {ms:8.1f} ms {found['fp32'] / ms:6.2f}x", flush=True)
    result["effect"] = effect(LayerSpec(weights="binary"))
    result["effect_static"] = effect(LayerSpec(weights="binary", activation_scale="static"))
    for kind in ("size_bytes", "memory_bytes", "effect"):
        print(f"\n{kind}", *(f"{name:42s} {value}" for name, value in result[kind].items()), sep="\n")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"packed-{processor()}-{version('torch')}.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
