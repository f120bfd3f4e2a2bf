"""Whether what a packed ViT-B/16 gains in latency holds for other architectures.

    python benchmarks/architectures.py [--threads 2] [--rounds 9]

ViT-B/16, ViT-S/16 and Swin-T of transformers, random weights, 224 px, all encoder layers binary with 8-bit
activations: fp32 against `load_packed` and `load_packed(..., exact=False)`. The variants take turns within
each round; medians, and their ratios to fp32. Writes results/architectures-<processor>-<torch>.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from packed import latencies
from peers import Run
from setting import machine, processor
from transformers import (
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from ablate import LayerSpec, load_packed, pack, quantize_
from ablate.models.layer_groups import groups

SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
MODELS = {
    "ViT-B/16": lambda: ViTForImageClassification(ViTConfig()),
    "ViT-S/16": lambda: ViTForImageClassification(ViTConfig(**SMALL)),
    "Swin-T": lambda: SwinForImageClassification(SwinConfig()),
}


def runs_of(name: str, folder: str) -> dict[str, Run]:
    """An architecture in fp32, and packed."""
    torch.manual_seed(0)
    full = MODELS[name]().eval()
    model = MODELS[name]().eval()
    blocks = [layers for group, layers in groups(model).items() if group.startswith("block")]
    quantize_(model, {layer: LayerSpec(weights="binary") for layers in blocks for layer in layers})
    pack(model, folder)
    return {
        "fp32": full,
        "exact=True": load_packed(folder),
        "exact=False": load_packed(folder, exact=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    about = machine("torch", "transformers", "ablate-vit")
    result = {"machine": about | {"threads": options.threads, "rounds": options.rounds}, "latency_ms": {}}
    with torch.inference_mode():
        for name in MODELS:
            with tempfile.TemporaryDirectory() as folder:
                runs = runs_of(name, folder)
                found = {str(batch): latencies(runs, batch, options.rounds) for batch in (1, 8)}
            for batch, times in found.items():
                ratios = {key: round(times["fp32"] / ms, 2) for key, ms in times.items()}
                print(name, "batch", batch, times, ratios, flush=True)
            result["latency_ms"][name] = found
    path = Path(__file__).parent / "results" / f"architectures-{processor()}-{about['torch']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
