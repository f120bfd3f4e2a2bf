"""Pre-trains a small ViT on Tiny-ImageNet-200 at 32 px without images like CIFAR-10's.

    python benchmarks/make_backbone.py --data FOLDER --out FOLDER                   # as vit-micro-200ep
    python benchmarks/make_backbone.py --data FOLDER --out FOLDER --weights binary  # binary from the start
    python benchmarks/make_backbone.py --data FOLDER --out FOLDER --passes 3 --batch 256       # on CPUs
    python benchmarks/make_backbone.py --data FOLDER --evaluate FOLDER              # validation top-1

--data holds the archive (JPEGs of 32 x 32 pixels in Tiny-ImageNet-200's own layout, its sha256 begins with
95c4424bcc55) and the list of its images that look like one of CIFAR-10, which are neither trained on nor
validated with: 99,103 and 9,961 images remain. ImageNet's terms (research use) apply to them.

The recipe: AdamW (betas 0.9 and 0.98, weight decay 0.05 on matrices), rate 2e-3 after 5 % warm-up, then a
cosine to a thousandth of it, batch 1,024, gradient norm 1, bfloat16 autocast, label smoothing 0.1; MixUp or
CutMix on every batch until 90 % of the steps; flips, shifts, rotation, scale, shear, colour and erasing,
drawn for each image (`ablate.training.distortion`); stochastic depth that grows to 0.05. What is saved is
the weights' average.

A checkpoint is kept after each pass; the same command goes on from there, on CPUs to the bit with the same
--threads. --out is then a model for `ablate study --model FOLDER`, and its training.json says what was
reached. Quantized, what is saved are the latent full-precision weights: those that `quantize_` quantizes
again, here (`--weights binary --evaluate FOLDER`) and in a study's trials.

The bundled vit-micro-200ep was made by a rough script of this recipe: top-1 36.3 % after 200.8 passes, 190 s
of training on an H100 at 104,600 images a second. This script has not run on a GPU yet. On a CPU, 3 passes at
batch 256 end at 8.2 %, those of the rough script at 6.9 % (one seed each, results/backbone-amd-epyc.json).
"""

import argparse
import json
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pretraining import PREPROCESS, SIDE, Pretraining, Settings, build, quantized, serialized
from pydantic import Field
from tiny_imagenet import read
from torch import nn
from transformers import ViTImageProcessor

from ablate.config.trial_spec import checked
from ablate.data.datasets import Split
from ablate.errors import AblateError, BadInput, write_error
from ablate.files import write_atomic
from ablate.formatting import format_duration
from ablate.hardware import device, device_name
from ablate.models import checkpoints, loading
from ablate.training.evaluation import evaluate

CHECKPOINT, RECORD = "checkpoint.pt", "training.json"


class Options(Settings):
    """The settings, and what does not change the result."""

    threads: int = Field(2, ge=1, description="of torch, on CPUs")
    minutes: float = Field(math.inf, ge=0, description="stop after the pass that exceeds them; go on later")


def load(folder: Path, classes: list[str], weights: str) -> nn.Module:
    """A saved backbone, quantized as its settings say. Raises BadInput when its head is for other classes."""
    path = folder / "config.json"
    names = json.loads(path.read_text()).get("id2label", {}) if path.is_file() else {}
    if names != {str(label): name for label, name in enumerate(classes)}:
        raise BadInput(
            f"--evaluate must be a model for the {len(classes)} classes, but {str(folder)!r} is not; "
            "give its folder"
        )
    return quantized(checkpoints.load(str(folder), classes), weights).to(device())


def begun(out: Path, settings: Settings) -> dict[str, Any] | None:
    """The checkpoint of an earlier run in `out`, or its record. Raises BadInput for any other folder."""
    if not out.exists() or (out.is_dir() and all(path.name.startswith(".") for path in out.iterdir())):
        return None
    try:
        record = out / RECORD
        found = (
            json.loads(record.read_text())
            if record.exists()
            else torch.load(out / CHECKPOINT, weights_only=True)
        )
        was = Settings(**found["asked"])
    except Exception as error:  # torn, absent or not ours
        why = f"cannot be read: {error}".split("\n")[0]
        raise BadInput(
            f"--out must be new or of an earlier run, but {str(out)!r} {why}; give another or remove it"
        ) from None
    if was != settings:
        other = {name for name, value in was if value != getattr(settings, name)}
        then, now = (
            ", ".join(f"{name} {value}" for name, value in each if name in other) for each in (was, settings)
        )
        raise BadInput(
            f"--out must be new or begun with {now}, but {str(out)!r} was begun with {then}; give another"
        )
    return found


def make(out: Path, options: Options, settings: Settings, state: dict[str, Any] | None, data: Path) -> None:
    """Pre-trains into `out` from `state`. Stops with a checkpoint after the pass that exceeds the minutes."""
    started = time.perf_counter()
    classes, images, validation = read(data)
    print(
        f"{len(images):,} + {len(validation):,} images in {time.perf_counter() - started:.0f} s", flush=True
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, f"--out must be a folder that can be made, but: {error}") from None
    model = build(classes, settings, device().type == "cuda").to(device())
    training = Pretraining(model, images, settings)
    if state:
        training.restore(state)
    written: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:  # training goes on while a checkpoint is written
        for row in training.passes(validation):
            left = (settings.passes - training.done) * row["seconds"]
            line = f"pass {training.done} of {settings.passes}: loss {row['loss']:.4f}, "
            line += f"{row['images_per_second']:,} images a second, {format_duration(left)} left"
            print(line + (f", validation top-1 {row['top1']:.2%}" if "top1" in row else ""), flush=True)
            if written:
                written.result()
            state = {"asked": settings.model_dump(), **training.state()}
            written = writer.submit(lambda state: write_atomic(out / CHECKPOINT, serialized(state)), state)
            if training.done < settings.passes and time.perf_counter() - started >= 60 * options.minutes:
                line = f"stopped after {training.done} of {settings.passes} passes"
                print(f"{line}; the same command goes on", flush=True)
                break
    if written:
        written.result()
    if training.done == settings.passes:
        save(out, training, validation, classes)


def save(out: Path, training: Pretraining, validation: Split, classes: list[str]) -> None:
    """Write the averaged weights as a model, its record, and remove the checkpoint."""
    average: Any = training.average
    vars(average.config).pop("quantization_config", None)  # what is saved are the latent weights
    average.half().save_pretrained(out)
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessor(size=size, image_mean=PREPROCESS.mean, image_std=PREPROCESS.std).save_pretrained(out)
    saved = load(out, classes, training.settings.weights)
    top1 = evaluate(saved, validation, loading.preprocess(str(out))).accuracy
    record = {
        "asked": training.settings.model_dump(),
        "top1": round(top1, 4),  # averaged, as saved
        "top1_last": round(evaluate(training.model, validation, PREPROCESS).accuracy, 4),
        "seconds": round(training.seconds, 1),
        "images_per_second": training.rows[-1]["images_per_second"],
        "hardware": device_name(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in ("torch", "torchvision", "transformers", "numpy")},
        "passes": training.rows,
    }
    write_atomic(out / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    (out / CHECKPOINT).unlink()
    print(f"{out}: validation top-1 {top1:.2%} as saved, {record['top1_last']:.2%} of the last weights")


def number(text: str) -> int | float | str:
    """A number where the text is one; what it must be is checked with the other options."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


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
    for name, field in Options.model_fields.items():
        shown = f"{field.description} ({field.default})"
        if name == "compile":
            flag = argparse.BooleanOptionalAction
            parser.add_argument("--compile", action=flag, default=device().type == "cuda", help=shown)
        else:
            parser.add_argument(f"--{name}", type=number, default=field.default, metavar="X", help=shown)
    args = parser.parse_args()
    try:
        fields = {name: getattr(args, name) for name in Options.model_fields}
        options = checked(Options, fields, "make_backbone.py")
        settings = Settings(**{name: getattr(options, name) for name in Settings.model_fields})
        torch.set_num_threads(options.threads)
        if args.evaluate:
            classes, _, validation = read(args.data)
            model = load(args.evaluate, classes, settings.weights)
            top1 = evaluate(model, validation, loading.preprocess(str(args.evaluate))).accuracy
            print(f"{args.evaluate}: top-1 {top1:.2%} of {len(validation):,} validation images")
            return
        state = begun(args.out, settings)
        if state and "top1" in state:
            print(f"{args.out} is finished: validation top-1 {state['top1']:.2%}")
        else:
            make(args.out, options, settings, state, args.data)
    except AblateError as error:
        parser.exit(2 if isinstance(error, BadInput) else 1, f"{error}\n")


if __name__ == "__main__":
    main()
