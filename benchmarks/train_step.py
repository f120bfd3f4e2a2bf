"""The time of a quantized training step beside full precision and other BitLinear layers, in one run.

    pip install bitlinear torchao                        the peers; without them their rows are left out
    python benchmarks/train_step.py [--device cuda --compile] [--model FOLDER] \\
        [--threads 1] [--rounds 15] [--only NAME...]

One step is the forward pass, cross-entropy, the backward pass and AdamW on a batch of random images, in
bfloat16 autocast. All encoder layers are quantized, 8-bit activations, no second LayerNorm. With --compile
each block of the encoder goes through torch.compile: they have the same code, so it is compiled once. The
variants take turns within each round, another one first in each, so that other load on the machine meets them
all alike; medians, and their ratio to full precision. Writes
results/train-step-<device>-<torch>[-<model>][-batch<n>][-compiled].json.
"""

import argparse
import copy
import json
import platform
import re
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import nn

from ablate import LayerSpec, quantize_
from ablate.data import datasets
from ablate.hardware import device_name
from ablate.models import checkpoints, loading

PACKAGES = ("torch", "transformers", "ablate-vit", "bitlinear", "torchao")
LAYERS = "vit.layers.*"
SEED = 0


def ours(**fields: object) -> Callable[[nn.Module], None]:
    return lambda model: quantize_(model, {LAYERS: LayerSpec(**fields)}) and None


def swapped(make: Callable[[nn.Linear], nn.Module]) -> Callable[[nn.Module], None]:
    """Replace the encoder's linear layers one by one, keeping their weights."""

    def change(model: nn.Module) -> None:
        for name, linear in list(model.vit.layers.named_modules()):
            if isinstance(linear, nn.Linear):
                layer = make(linear)
                layer.load_state_dict(linear.state_dict(), strict=False)
                model.vit.layers.set_submodule(name, layer)

    return change


def pypi_bitlinear() -> Callable[[nn.Module], None]:
    from bitlinear import BitLinear

    return swapped(
        lambda old: BitLinear(old.in_features, old.out_features, norm=None, weight_measure="AbsMean")
    )


def transformers_bitlinear() -> Callable[[nn.Module], None]:
    from transformers.integrations.bitnet import AutoBitLinear

    return swapped(lambda old: AutoBitLinear(old.in_features, old.out_features, online_quant=True))


def torchao_bitnet() -> Callable[[nn.Module], None]:
    from torchao.prototype.quantized_training import bitnet_training
    from torchao.quantization import quantize_ as torchao_quantize_

    return lambda model: torchao_quantize_(model.vit.layers, bitnet_training())


VARIANTS: dict[str, Callable[[], Callable[[nn.Module], None]]] = {
    "full": lambda: lambda model: None,
    "ablate binary": lambda: ours(weights="binary"),
    "ablate ternary": lambda: ours(weights="ternary"),
    "ablate ternary, beta per channel": lambda: ours(weights="ternary", beta_per="channel"),
    "ablate ternary, clipped": lambda: ours(weights="ternary", straight_through="clipped"),
    "bitlinear (PyPI), ternary": pypi_bitlinear,
    "transformers AutoBitLinear, ternary": transformers_bitlinear,
    "torchao bitnet_training, ternary": torchao_bitnet,
}


def step_of(
    model: nn.Module, size: tuple[int, int], batch: int, device: str, compiled: bool
) -> Callable[[], float]:
    """One training step; its loss."""
    pixels = torch.randn(batch, 3, *size, device=device)
    labels = torch.randint(0, 10, (batch,), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    for block in model.vit.layers if compiled else ():
        block.compile()

    def step() -> float:
        with torch.autocast(device, torch.bfloat16):
            loss = nn.functional.cross_entropy(model(pixels).logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()  # waits for the device

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit-micro")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--only", nargs="+", default=[*VARIANTS], choices=[*VARIANTS], metavar="NAME", help="full among them"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    if options.compile:  # each variant or none: past its limit torch.compile would go on without compiling
        torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit = 64, True
    size = loading.preprocess(options.model).size
    fresh = checkpoints.load(options.model, datasets.load("cifar10-mini").classes).to(options.device).train()
    steps, missing = {}, {}
    for name in options.only:
        model = copy.deepcopy(fresh)
        try:
            VARIANTS[name]()(model)
            step = step_of(model.to(options.device), size, options.batch, options.device, options.compile)
            for _ in range(3):
                step()  # warm-up
        except Exception as error:  # a peer that does not run here
            if name == "full":
                raise
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            continue
        steps[name] = step
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(options.rounds):
        for name, step in islice(
            cycle(steps.items()), i % len(steps), i % len(steps) + len(steps)
        ):  # each one first in turn
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    rows = {
        name: {
            "ms": round(1000 * statistics.median(times), 1),
            "times_full": round(
                statistics.median(t / f for t, f in zip(times, seconds["full"], strict=True)), 3
            ),
        }
        for name, times in seconds.items()
    }
    result = {
        "hardware": device_name(),
        "python": platform.python_version(),
        **vars(options),
        "seed": SEED,
        "packages": found(),
    }
    result |= {"steps": rows, "not_run": missing}
    text = json.dumps(result, indent=1)
    print(text)
    device = re.sub(r"\W+", "-", device_name()).lower()
    parts = ["train-step", device, version("torch").partition("+")[0]]
    parts += [Path(options.model).name] * (options.model != "vit-micro")
    parts += [f"batch{options.batch}"] * (options.batch != 64) + ["compiled"] * options.compile
    (Path(__file__).parent / "results" / f"{'-'.join(parts)}.json").write_text(text + "\n")


def found() -> dict[str, str]:
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return packages


if __name__ == "__main__":
    main()
