"""Images per second of an evaluation by its batch size, in full precision and binary, in one run.

    python benchmarks/evaluation.py [--device cuda] [--threads 1] [--rounds 7]

The bundled backbone; all its encoder layers binary with 8-bit activations, and evaluated by
`ablate.training.evaluation.evaluate` as every trial is. The batch sizes take turns within each round, so that
other load on the machine meets them all alike; medians, and the median of their ratios to 250 images. Writes
results/evaluation-<device>-<torch>.json.
"""

import argparse
import json
import platform
import re
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import torch

from ablate import LayerSpec, quantize_
from ablate.data import datasets
from ablate.hardware import device_name
from ablate.models import checkpoints, loading
from ablate.training import evaluation

SIZES = (1000, 500, 250, 100, 50, 25, 10)
IMAGES = {"cpu": 500, "cuda": 1000}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    mini = datasets.load("cifar10-mini")
    n = IMAGES[options.device]
    images, sizes = (
        datasets.Split(mini.test.images[:n], mini.test.labels[:n]),
        [size for size in SIZES if size <= n],
    )
    preprocess = loading.preprocess("vit-micro")
    tested = {
        weights: checkpoints.load("vit-micro", mini.classes).to(options.device)
        for weights in ("full", "binary")
    }
    quantize_(tested["binary"], {"vit.layers.*": LayerSpec(weights="binary")})
    seconds: dict[str, dict[int, list[float]]] = {weights: {size: [] for size in sizes} for weights in tested}
    for counted in [False] + options.rounds * [True]:  # the first round warms up
        for size in sizes:
            evaluation.AT_ONCE[options.device] = size
            for weights, model in tested.items():
                started = time.perf_counter()
                evaluation.evaluate(model, images, preprocess)
                if counted:
                    seconds[weights][size].append(time.perf_counter() - started)
    rows = [
        {
            "weights": weights,
            "images_at_once": size,
            "images_per_second": round(n / statistics.median(times[size])),
            "times_250": round(
                statistics.median(a / b for a, b in zip(times[250], times[size], strict=True)), 2
            ),
        }
        for weights, times in seconds.items()
        for size in sizes
    ]
    result = {
        "hardware": device_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **vars(options),
    }
    text = json.dumps(result | {"images": n, "rows": rows}, indent=1)
    print(text)
    device = re.sub(r"\W+", "-", device_name()).lower()
    name = f"evaluation-{device}-{version('torch').partition('+')[0]}.json"
    (Path(__file__).parent / "results" / name).write_text(text + "\n")


if __name__ == "__main__":
    main()
