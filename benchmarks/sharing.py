"""How many trials should share a GPU: image views a second of all together, by how many train at once.

    python benchmarks/sharing.py [--at-once 1 4 8 16] [--views 6400] [--device cuda]

Each process is a trial's: the bundled backbone with all encoder layers binary and 8-bit activations, one CPU
thread, the default recipe on cifar10-mini. All start together, after a warm-up. Another share is to be had
where NVIDIA's MPS runs: then kernels of several processes run side by side, which otherwise take turns;
--label says so in the file's name. Writes results/sharing-<device>-<torch>[-<label>].json.
"""

import argparse
import json
import platform
import re
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from torch import multiprocessing

from ablate import LayerSpec, quantize_
from ablate.config.trial_spec import Recipe
from ablate.data import datasets
from ablate.hardware import device_name
from ablate.models import checkpoints, loading
from ablate.training import trainer

WARM_UP = 640  # views


def one(
    device: str, weights: str, views: int, start: Barrier, found: "multiprocessing.SimpleQueue[float]"
) -> None:
    """Train as a trial does, once all processes are ready; its seconds."""
    torch.set_num_threads(1)
    mini, preprocess = datasets.load("cifar10-mini"), loading.preprocess("vit-micro")
    model = checkpoints.load("vit-micro", mini.classes)
    quantize_(model, {"vit.layers.*": LayerSpec(weights=weights)})
    few = datasets.Split(mini.validation.images[:100], mini.validation.labels[:100])
    for counted in (WARM_UP, views):
        if counted == views:
            start.wait()
        started = time.perf_counter()
        recipe = Recipe(image_views=counted, validate_every=1000)
        for _ in trainer.train(model.to(device), mini.train, few, recipe, preprocess, seed=0):
            found.put(time.perf_counter() - started) if counted == views else None


def together(n: int, options: argparse.Namespace, weights: str) -> dict[str, object]:
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(n), context.SimpleQueue()
    arguments = (options.device, weights, options.views, start, found)
    processes = [context.Process(target=one, args=arguments) for _ in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = [found.get() for _ in range(n)] if all(process.exitcode == 0 for process in processes) else []
    rate = round(n * options.views / max(seconds)) if seconds else None
    return {
        "weights": weights,
        "at_once": n,
        "views_per_second": rate,
        "slowest_s": round(max(seconds, default=0), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--weights", nargs="+", default=["full", "binary"])
    parser.add_argument("--views", type=int, default=6400, help="of each process")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--label", default="")
    options = parser.parse_args()
    rows = []
    for n in options.at_once:
        for weights in options.weights:
            rows.append(together(n, options, weights))
            print(rows[-1], flush=True)
    device = device_name()
    result = {
        "hardware": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **vars(options),
        "rows": rows,
    }
    parts = ["sharing", re.sub(r"\W+", "-", device).lower(), torch.__version__.partition("+")[0]] + [
        options.label
    ] * bool(options.label)
    (Path(__file__).parent / "results" / f"{'-'.join(parts)}.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
