"""Fine-tunes a ViT with binary layers in a LightningModule, and packs it.

    pip install 'ablate-vit[lightning]'
    python examples/lightning_module.py [--steps 64] [--out packed]

The loop is Lightning's own; the callback quantizes the model, fades the quantized layers in over the first
half of the steps, and packs the model at the end. Bundled model and images, no network.
"""

import argparse
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import ablate
from ablate import LayerSpec, data, models
from ablate.integrations.lightning import QuantizeCallback

MODEL, DATA = "vit-micro-200ep", "cifar10-1k"


class Classifier(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module, preprocess: Any) -> None:
        super().__init__()
        self.model, self.preprocess = model, preprocess

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        images, labels = batch  # (B, 3, H, W) uint8, (B,)
        return F.cross_entropy(self.model(self.preprocess(images)).logits, labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def loader(split: Any, shuffle: bool) -> DataLoader[Any]:
    images = torch.from_numpy(split.images.transpose(0, 3, 1, 2).copy())
    return DataLoader(TensorDataset(images, torch.from_numpy(split.labels)), batch_size=32, shuffle=shuffle)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("packed"), help="folder of the packed model")
    given = parser.parse_args()

    dataset, preprocess = data.load(DATA), models.preprocess(MODEL)
    module = Classifier(models.load(MODEL, dataset.classes).train(), preprocess)
    callback = QuantizeCallback(
        {"vit.layers.*": LayerSpec(weights="binary", beta="learned", norm="unnormalised")},
        attribute="model",
        progressive="sigmoid",
        pack_to=given.out,
        preprocess=preprocess,
    )
    trainer = lightning.Trainer(
        max_steps=given.steps, callbacks=[callback], logger=False, enable_checkpointing=False
    )
    trainer.fit(module, loader(dataset.train, shuffle=True))

    packed = ablate.load_packed(given.out)
    correct = torch.cat(
        [
            packed(preprocess(images)).logits.argmax(1) == labels
            for images, labels in loader(dataset.validation, shuffle=False)
        ]
    )
    size = sum(file.stat().st_size for file in given.out.iterdir())
    print(f"{given.out}: {correct.float().mean():.1%} of {len(correct)} validation images, {size:,} bytes")


if __name__ == "__main__":
    main()
