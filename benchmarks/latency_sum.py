"""The latency of parts, which a search adds up, beside that of whole models.

    python benchmarks/latency_sum.py [--threads 1] [--models 8]

The bundled ViT, and a ViT-B/16 with random weights. Of each: all full, all binary, and models whose layer
groups are binary with probability one half; one image a call, as `load_packed(..., exact=False)` gives them,
and with exact=True. Writes results/latency-sum.json.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import torch
from setting import machine, processor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from ablate import LayerSpec, load_packed, pack, quantize_
from ablate.data import datasets
from ablate.models import checkpoints, loading
from ablate.models.layer_groups import groups
from ablate.profiling.latency import measure
from ablate.profiling.part_latencies import layer_table
from ablate.quantization.fused_model import fuse_

BINARY = LayerSpec(weights="binary")


def rows(model_name: str, models: int) -> list[dict[str, object]]:
    """A row for each model: how many of its groups are binary, and its latencies in ms."""
    size = loading.preprocess(model_name).size
    table = layer_table(checkpoints.load(model_name, datasets.CIFAR10), size, [BINARY], torch.device("cpu"))
    draw, found = random.Random(0), []
    for number in range(models):
        model = checkpoints.load(model_name, datasets.CIFAR10)
        share = (0.0, 1.0)[number] if number < 2 else 0.5
        chosen = [names for names in groups(model).values() if draw.random() < share]
        precisions = {name: BINARY for names in chosen for name in names}
        if precisions:
            quantize_(model, precisions)
        with tempfile.TemporaryDirectory() as folder:
            pack(model, folder)
            packed = load_packed(folder)
        exact = measure(packed, size, seconds=2)
        fuse_(packed)
        whole = measure(packed, size, seconds=2)
        row = {"binary_groups": len(chosen), "of": len(groups(model)), "sum_ms": table.sum(precisions)}
        row |= {"whole_ms": whole.median_ms, "n": whole.n, "exact_ms": exact.median_ms}
        found.append(row | {"sum_over_whole": table.sum(precisions) / whole.median_ms})
        print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "machine": machine("torch", "transformers", "ablate-vit")
        | {"processor": processor(), "threads": options.threads}
    }
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        ViTForImageClassification(ViTConfig(num_labels=10)).save_pretrained(folder)
        ViTImageProcessor().save_pretrained(folder)
        for label, name in {"vit-micro-200ep": "vit-micro-200ep", "ViT-B/16, random weights": folder}.items():
            result[label] = rows(name, options.models)
    path = Path(__file__).parent / "results" / "latency-sum.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
