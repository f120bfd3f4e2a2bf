"""Pre-trains the bundled backbone vit-micro, on Tiny-ImageNet-200 at 32 px without images like CIFAR-10's.

    python benchmarks/make_backbone.py --data FOLDER --out FOLDER                   # the bundled one
    python benchmarks/make_backbone.py --data FOLDER --out FOLDER --weights binary  # binary from the start
    python benchmarks/make_backbone.py --data FOLDER --evaluate ablate/assets/vit-micro

--data holds the archive (JPEGs of 32 x 32 pixels in Tiny-ImageNet-200's own layout, its sha256 begins with
95c4424bcc55) and the list of its images that look like one of CIFAR-10, which are neither trained on nor
validated with: 99,103 and 9,961 images remain. ImageNet's terms (research use) apply to them.

A checkpoint is kept after each epoch; the same command goes on from there, to the bit with the same
--threads. On a GPU, which waits for the CPU to queue the kernels of so small a model, --compile takes each
block through torch.compile. --out is then a model for `ablate study --model FOLDER`. Quantized, what is saved
are the latent full-precision weights: those that `quantize_` quantizes again, here (`--weights binary
--evaluate FOLDER`) and in a study's trials.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_imagenet import SIDE, read
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from ablate import LayerSpec, quantize_
from ablate.config.trial_spec import Recipe
from ablate.data.datasets import Split
from ablate.errors import AblateError, BadInput, NonFinite
from ablate.hardware import device, device_name
from ablate.models import checkpoints, loading
from ablate.models.preprocessing import Preprocess
from ablate.training.compilation import compiled
from ablate.training.loss import Objective
from ablate.training.optim import optimizer_of, rate
from ablate.training.trainer import evaluate

CHECKPOINT, RECORD = "checkpoint.pt", "training.json"
PATCH, PAD = 4, 4  # pixels
PREPROCESS = Preprocess(
    (SIDE, SIDE), (SIDE, SIDE), "bilinear", 1 / 255, (0.48, 0.448, 0.398), (0.253, 0.246, 0.26)
)
RECIPE = Recipe(
    batch_size=256, learning_rate=1.5e-3, weight_decay=0.05, label_smoothing=0.1, clip_norm=1.0, bf16=True
)
BETAS = (0.9, 0.99)
WARMUP = 300  # steps, and a tenth of them all at most
DROP_UNTIL = 0.85  # share of the steps that see only half of the patch tokens
SEED = 0


def build(classes: list[str], weights: str) -> nn.Module:
    """The ViT before training. Unless "full", the encoder's linear layers have 8-bit activations."""
    torch.manual_seed(SEED)
    sizes = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768}
    names = dict(enumerate(classes))
    config = ViTConfig(
        **sizes, image_size=SIDE, patch_size=PATCH, id2label=names, label2id={v: k for k, v in names.items()}
    )
    config._attn_implementation = "eager"  # trains faster on CPUs, see ablate/models/loading.py
    return quantized(ViTForImageClassification(config), weights)


def quantized(model: nn.Module, weights: str) -> nn.Module:
    quantize_(model, {"vit.layers.*": LayerSpec(weights=weights, activation_bits=8)})
    return model


def augment(images: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Crops after reflection padding, one offset for each eighth of the batch, then flips.

    uint8 (B, H, W, 3) -> (B, 3, H, W).
    """
    padded = np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), "reflect")  # (B, H + 8, W + 8, 3)
    offsets = rng.integers(0, 2 * PAD + 1, (8, 2))
    eighths = zip(np.array_split(padded, 8), offsets, strict=True)
    crops = np.concatenate(
        [eighth[:, y : y + SIDE, x : x + SIDE] for eighth, (y, x) in eighths]
    )  # (B, H, W, 3)
    flipped = rng.random((len(crops), 1, 1, 1)) < 0.5
    return torch.from_numpy(np.where(flipped, crops[:, :, ::-1], crops).transpose(0, 3, 1, 2).copy())


def pretrain(
    model: nn.Module,
    images: Split,
    validation: Split,
    epochs: int,
    state: dict[str, Any] | None,
    compile: bool = False,
) -> Iterator[dict[str, Any]]:
    """Trains in place; after each epoch yields what it goes on from, with a row for each epoch so far."""
    steps = epochs * math.ceil(len(images) / RECIPE.batch_size)
    recipe = RECIPE.model_copy(update={"epochs": epochs, "warmup": min(WARMUP, steps // 10) / steps})
    device = next(model.parameters()).device
    rng = np.random.default_rng(
        SEED
    )  # order, augmentation and dropped patches; the model itself draws nothing
    optimizer, objective = optimizer_of(model, recipe), Objective(model, recipe, None)
    for group in optimizer.param_groups:
        group["betas"] = BETAS
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, recipe))
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    rows = []
    if state:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        rng.bit_generator.state, rows = state["rng"], state["rows"]

    def half(embeddings: nn.Module, _: Any, tokens: Tensor) -> Tensor:
        """(B, 1 + N, D) -> (B, 1 + N / 2, D): CLS and a random half of each image's patches."""
        if not embeddings.training or schedule.last_epoch >= DROP_UNTIL * steps:
            return tokens
        b, n, d = tokens.shape
        kept = 1 + torch.from_numpy(rng.random((b, n - 1)).argsort(1)[:, : (n - 1) // 2])  # (B, N / 2)
        return torch.cat(
            [tokens[:, :1], tokens.gather(1, kept.to(tokens.device)[:, :, None].expand(-1, -1, d))], 1
        )

    model.get_submodule("vit.embeddings").register_forward_hook(half)
    for epoch in range(len(rows) + 1, epochs + 1):
        started, losses = time.perf_counter(), []
        model.train()
        order = rng.permutation(len(images))
        with compiled(model, compile):
            for batch in (order[i : i + recipe.batch_size] for i in range(0, len(order), recipe.batch_size)):
                pixels = augment(images.images[batch], rng).to(device)
                labels = torch.from_numpy(images.labels[batch]).to(device)
                with torch.autocast(device.type, torch.bfloat16):
                    loss = objective(PREPROCESS(pixels), labels)
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    raise NonFinite(
                        f"training loss is {losses[-1]} at step {schedule.last_epoch + 1} of {steps}"
                    )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
        top1 = evaluate(model, validation, PREPROCESS, epoch).accuracy
        seconds = round(time.perf_counter() - started, 1)
        rows = [
            *rows,
            {
                "epoch": epoch,
                "loss": round(float(np.mean(losses)), 4),
                "top1": round(top1, 4),
                "seconds": seconds,
            },
        ]
        yield {name: part.state_dict() for name, part in parts.items()} | {
            "rng": rng.bit_generator.state,
            "rows": rows,
        }


def load(folder: Path, classes: list[str], weights: str) -> nn.Module:
    """A saved backbone, quantized as its settings say. Raises BadInput when its head is for other classes."""
    path = folder / "config.json"
    names = json.loads(path.read_text()).get("id2label", {}) if path.is_file() else {}
    if names != {str(label): name for label, name in enumerate(classes)}:
        raise BadInput(
            f"--evaluate must be a model for the {len(classes)} classes, but {str(folder)!r} is not; "
            "give its folder"
        )
    return quantized(checkpoints.load(str(folder), classes), weights)


def begun(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of an earlier run in `out`, or its record. Raises BadInput for any other folder."""
    if not out.exists() or (out.is_dir() and {path.suffix for path in out.iterdir()} <= {".part"}):
        return None
    try:
        record = out / RECORD
        found = (
            json.loads(record.read_text())
            if record.exists()
            else torch.load(out / CHECKPOINT, weights_only=True)
        )
        was = found["asked"]
    except Exception as error:  # torn, absent or not ours
        why = f"cannot be read: {error}".split("\n")[0]
        raise BadInput(
            f"--out must be new or of an earlier run, but {str(out)!r} {why}; give another or remove it"
        ) from None
    if was != settings:
        flags = (
            (f"--{name}" if value is True else f"--{name} {value}" for name, value in each.items())
            for each in (was, settings)
        )
        then, now = map(" ".join, flags)
        raise BadInput(
            f"--out must be new or begun with {now}, but {str(out)!r} was begun with {then}; give another"
        )
    return found


def make(
    out: Path, settings: dict[str, Any], state: dict[str, Any] | None, data: Path, minutes: float
) -> None:
    """Pre-trains into `out` from `state`. Stops with a checkpoint after the epoch that exceeds `minutes`."""
    started, epochs = time.perf_counter(), settings["epochs"]
    classes, images, validation = read(data)
    print(
        f"{len(images):,} + {len(validation):,} images in {time.perf_counter() - started:.0f} s", flush=True
    )
    out.mkdir(parents=True, exist_ok=True)
    model, rows = build(classes, settings["weights"]).to(device()), state["rows"] if state else []
    for after in pretrain(model, images, validation, epochs, state, settings.get("compile", False)):
        torch.save(after | {"asked": settings}, out / "checkpoint.part")
        (out / "checkpoint.part").replace(out / CHECKPOINT)
        rows = after["rows"]
        line = "epoch {epoch} of {epochs}: loss {loss:.4f}, validation top-1 {top1:.2%}, {seconds:.0f} s"
        print(line.format(**rows[-1], epochs=epochs), flush=True)
        if len(rows) < epochs and time.perf_counter() - started >= 60 * minutes:
            print(f"stopped after {len(rows)} of {epochs} epochs; the same command goes on", flush=True)
            return
    vars(model.config).pop("quantization_config", None)  # what is saved are the latent weights
    model.half().save_pretrained(out)
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessor(size=size, image_mean=PREPROCESS.mean, image_std=PREPROCESS.std).save_pretrained(out)
    top1 = evaluate(
        load(out, classes, settings["weights"]).to(device()), validation, loading.preprocess(str(out))
    ).accuracy
    packages = {name: version(name) for name in ("torch", "transformers", "numpy", "pillow")}
    record = {
        "asked": settings,
        "top1": round(top1, 4),
        "hardware": device_name(),
        "threads": torch.get_num_threads(),
    }
    record |= {"seed": SEED}
    (out / "record.part").write_text(
        json.dumps(record | {"packages": packages, "epochs": rows}, indent=1) + "\n"
    )
    (out / "record.part").replace(out / RECORD)
    (out / CHECKPOINT).unlink()
    print(f"{out}: validation top-1 {top1:.2%} as saved", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the archive and the list")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="folder to make, or to go on in")
    task.add_argument(
        "--evaluate", type=Path, metavar="FOLDER", help="validation top-1 of a saved backbone, no training"
    )
    parser.add_argument(
        "--weights", default="full", choices=("full", "binary", "ternary"), help="of the encoder's layers"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="the encoder's blocks, by torch.compile")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after the epoch that passes them; go on later"
    )
    args = parser.parse_args()
    try:
        for name, least in (("epochs", 1), ("threads", 1), ("minutes", 0)):
            if not (value := getattr(args, name)) >= least:
                raise BadInput(
                    f"{least} <= {name} must hold, but got {value}; give --{name} {max(1, least)} or more"
                )
        torch.set_num_threads(args.threads)
        if args.evaluate:
            classes, _, validation = read(args.data)
            model = load(args.evaluate, classes, args.weights).to(device())
            top1 = evaluate(model, validation, loading.preprocess(str(args.evaluate))).accuracy
            print(f"{args.evaluate}: top-1 {top1:.2%} of {len(validation):,} validation images")
            return
        settings = {"epochs": args.epochs, "weights": args.weights} | (
            {"compile": True} if args.compile else {}
        )
        state = begun(args.out, settings)
        if state and "top1" in state:
            print(f"{args.out} is finished: validation top-1 {state['top1']:.2%}")
        else:
            make(args.out, settings, state, args.data, args.minutes)
    except AblateError as error:
        parser.exit(2 if isinstance(error, BadInput) else 1, f"{error}\n")


if __name__ == "__main__":
    main()
