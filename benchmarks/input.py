"""How fast images reach a training step: decoded once into a file, read from it in random order, augmented.

    python benchmarks/input.py [--images 2000] [--rounds 5]

JPEGs of 500 x 375 pixels in a Parquet file become 224 x 224 in a memory-mapped file, as images larger than
memory do, and are read from it in batches of 64: from memory, and from the disk once the system has let its
copy go. Policies and random erasing change batches of 64 on one thread. Rates are by CPU time, which other
load changes less than the clock; only reading from the disk is by the clock. Medians. Writes
results/input-<processor>.json.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from setting import machine, processor

from ablate.data import datasets, image_files
from ablate.data.mapped import MappedImages
from ablate.training.policies import POLICIES, policy_of

BATCH, SIDE = 64, 224


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    image_files.MEMORY_SHARE = 0  # as if nothing fitted in memory
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ABLATE_CACHE"] = folder
        name = _parquet(Path(folder) / "photos.parquet", options.images)
        started = time.process_time()
        images = datasets.load(name).train.images
        decoded = options.images / (time.process_time() - started)
        order = np.random.default_rng(0).permutation(len(images))
        batches = [order[i : i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]

        def read() -> None:
            for batch in batches:
                images[batch]

        read()  # warm-up
        memory = _median(time.process_time, read, options.rounds)
        disk = _median(time.perf_counter, read, options.rounds, lambda: _forget(images))
    count = len(batches) * BATCH
    rows = {
        "decoded_per_cpu_second": round(decoded),
        "read_from_memory_per_cpu_second": round(count / memory),
        "read_from_disk_per_second": round(count / disk),
        "policies_ms_of_a_batch": {side: _policies(side, options.rounds) for side in (32, SIDE)},
    }
    about = machine("torch", "torchvision", "pillow", "datasets")
    text = json.dumps(about | vars(options) | {"batch": BATCH, "side": SIDE} | rows, indent=1)
    (Path(__file__).parent / "results" / f"input-{processor()}.json").write_text(text + "\n")
    print(text)


def _parquet(path: Path, n: int) -> str:
    """Smooth random photos of two classes; the name of the dataset."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, rows = np.random.default_rng(0), []
    for _ in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(file := io.BytesIO(), "JPEG", quality=90)
        rows.append(file.getvalue())
    pq.write_table(pa.table({"image": rows, "label": [i % 2 for i in range(n)]}), path)
    return f"hf:{path}?size={SIDE}"


def _forget(images: MappedImages) -> None:
    """Ask the system to drop its copy of a file, which it does not while the file is mapped."""
    images.__dict__.pop("_images", None)
    with images.path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _policies(side: int, rounds: int) -> dict[str, float]:
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 3, side, side), np.uint8)
    images, times = torch.from_numpy(pixels), {}
    changes = {name: policy_of(name, 0.0, (0.5,) * 3) for name in POLICIES}
    for name, change in (changes | {"erase": policy_of(None, 0.25, (0.5,) * 3)}).items():
        assert change is not None
        change(images)  # warm-up
        times[name] = round(
            1000 * _median(time.process_time, lambda change=change: change(images), rounds), 1
        )
    return times


def _median(
    clock: Callable[[], float],
    run: Callable[[], object],
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> float:
    seconds = []
    for _ in range(rounds):
        before()
        started = clock()
        run()
        seconds.append(clock() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
