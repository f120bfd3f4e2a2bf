"""Fine-tunes a ViT with ternary layers by transformers' Trainer, and packs it.

    python examples/hf_trainer.py [--steps 64] [--out packed]          # needs accelerate

The loop is transformers' own; the callback quantizes the model, fades the quantized layers in over the first
half of the steps, and packs the model at the end. Bundled model and images, no network.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

import ablate
from ablate import LayerSpec, data, models
from ablate.integrations.trainer import QuantizeCallback

MODEL, DATA = "vit-micro-200ep", "cifar10-1k"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("packed"), help="folder of the packed model")
    given = parser.parse_args()

    dataset, preprocess = data.load(DATA), models.preprocess(MODEL)
    model = models.load(MODEL, dataset.classes)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        images = torch.stack([torch.from_numpy(row["image"]) for row in rows])  # (B, H, W, 3), uint8
        labels = torch.tensor([int(row["label"]) for row in rows])
        return {"pixel_values": preprocess(images.permute(0, 3, 1, 2)), "labels": labels}

    def rows(split: Any) -> list[dict[str, Any]]:
        return [{"image": x, "label": y} for x, y in zip(split.images, split.labels, strict=True)]

    callback = QuantizeCallback(
        {"vit.layers.*": LayerSpec(weights="ternary", norm="unnormalised")},
        progressive="linear",
        pack_to=given.out,
        preprocess=preprocess,
    )
    arguments = TrainingArguments(
        max_steps=given.steps,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        save_strategy="no",
        remove_unused_columns=False,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = Trainer(
        model, arguments, collate, rows(dataset.train), rows(dataset.validation), callbacks=[callback]
    )
    trainer.train()
    print(f"validation loss {trainer.evaluate()['eval_loss']:.3f}")

    packed = ablate.load_packed(given.out)
    split = dataset.validation
    with torch.no_grad():
        pixels = preprocess(torch.from_numpy(split.images.transpose(0, 3, 1, 2).copy()))
        correct = packed(pixels).logits.argmax(1).numpy() == split.labels
    size = sum(file.stat().st_size for file in given.out.iterdir())
    print(f"{given.out}: {correct.mean():.1%} of {len(split)} validation images, {size:,} bytes")


if __name__ == "__main__":
    main()
