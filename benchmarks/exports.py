"""The exports of a packed ViT-B/16 in onnxruntime and OpenVINO, beside what these make of it by themselves.

    pip install onnx onnxruntime onnxscript openvino nncf
    python benchmarks/exports.py [--threads 2] [--rounds 9]

All encoder layers are binary with 8-bit activations, 224 px, random weights; scales are those of each token,
or static. The variants take turns within each round; medians. OpenVINO is measured with the precision that it
chooses for what is no product of integers (bfloat16 where the CPU has it), and in float32. Takes about five
minutes and writes results/exports-<processor>-<torch>.json.
"""

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nncf
import onnxruntime as ort
import openvino as ov
import torch
from packed import bare_products, latencies
from peers import CALIBRATION, Run, onnxruntime, vit
from setting import machine, processor

from ablate import LayerSpec, calibrate_, load_packed, pack, quantize_
from ablate.models.preprocessing import Preprocess
from ablate.quantization.onnx_export import onnx_bytes

RESULTS = Path(__file__).parent / "results"
PREPROCESS = Preprocess((224, 224), (224, 224), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3)
PACKAGES = ("torch", "transformers", "onnxruntime", "onnxscript", "openvino", "nncf")


def in_onnxruntime(graph: bytes, threads: int) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.numpy()})


def in_openvino(model: Any, threads: int) -> dict[str, Run]:
    """By the precision of what is no product of integers."""
    found: dict[str, Run] = {}
    for name, hint in {"": {}, ", f32": {"INFERENCE_PRECISION_HINT": "f32"}}.items():
        compiled = ov.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, **hint})
        found[name] = lambda x, run=compiled: run([x.numpy()])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = machine(*PACKAGES) | {"threads": args.threads, "rounds": args.rounds, "seed": 0}
    result |= {"file_bytes": {}, "latency_ms": {}}
    runs: dict[str, Run] = {"fp32": vit(), "the encoder's products alone": bare_products}
    with tempfile.TemporaryDirectory() as folder:
        for scale in ("token", "static"):
            model, ours = vit(), f"{folder}/{scale}"
            quantize_(model, {"vit.layers.*": LayerSpec(weights="binary", activation_scale=scale)})
            calibrate_(model, torch.randn(8, 3, 224, 224))
            size, graph = pack(model, ours, preprocess=PREPROCESS), onnx_bytes(ours)
            result["file_bytes"] |= {f"{scale}, packed": size, f"{scale}, ONNX": len(graph)}
            runs[f"{scale}: torch, exact=False"] = load_packed(ours, exact=False)
            runs[f"{scale}: onnxruntime"] = in_onnxruntime(graph, args.threads)
            for name, run in in_openvino(ov.Core().read_model(graph), args.threads).items():
                runs[f"{scale}: OpenVINO{name}"] = run
        runs["onnxruntime's own dynamic int8"] = onnxruntime(folder, args.threads)["onnxruntime int8"]
        images = [torch.randn(1, 3, 224, 224).numpy() for _ in range(CALIBRATION)]
        own = ov.convert_model(f"{folder}/vit.onnx")
        own = nncf.quantize(own, nncf.Dataset(images), model_type=nncf.ModelType.TRANSFORMER)
        for name, run in in_openvino(own, args.threads).items():
            runs[f"OpenVINO's own static int8 (NNCF){name}"] = run
    with torch.inference_mode():
        for batch in (1, 8):
            found = result["latency_ms"][str(batch)] = latencies(runs, batch, args.rounds)
            print(f"\nbatch {batch}, {args.threads} threads, median of {args.rounds}")
            for name, ms in found.items():
                print(f"{name:42s} {ms:8.1f} ms {found['fp32'] / ms:6.2f}x", flush=True)
    file = RESULTS / f"exports-{processor()}-{version('torch')}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
