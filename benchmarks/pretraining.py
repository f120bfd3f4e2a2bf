"""Pre-training of a small ViT by the recipe of `make_backbone.py`: its settings, the model and the steps."""

import copy
import io
import math
import time
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torchvision.ops import StochasticDepth
from transformers import ViTConfig, ViTForImageClassification

from ablate import LayerSpec, quantize_
from ablate.config.trial_spec import Positive, Spec
from ablate.data.dataset import subset
from ablate.data.datasets import Split
from ablate.errors import BadInput, NonFinite
from ablate.models.loading import Logits
from ablate.models.preprocessing import Preprocess
from ablate.models.pretrained import label_fields
from ablate.training.distortion import DRAWS, Augment, mixing
from ablate.training.evaluation import evaluate

SIDE, PATCH, HEAD = 32, 4, 64  # pixels of an image and of a patch, width of an attention head
PREPROCESS = Preprocess(
    (SIDE, SIDE), (SIDE, SIDE), "bilinear", 1 / 255, (0.48, 0.448, 0.398), (0.253, 0.246, 0.26)
)
BETAS, WEIGHT_DECAY, CLIP_NORM, SMOOTHING = (0.9, 0.98), 0.05, 1.0, 0.1
WARMUP, MIXED_UNTIL = 0.05, 0.9  # shares of the steps
FLOOR = 0.001  # of the learning rate, at the end
DROP_PATH = 0.05  # of the last block, by stochastic depth (arXiv 1603.09382)
MIX = 0.8  # alpha of MixUp and CutMix
AVERAGE = 0.9998  # decay a step of the averaged weights
VALIDATED = 10  # passes between two validations


class Settings(Spec):
    """What changes a pre-training's result."""

    weights: Literal["full", "binary", "ternary"] = Field("full", description="of the encoder's layers")
    images: float = Field(
        1.0, gt=0, le=1, description="share of the training images; smaller ones are nested"
    )
    passes: int = Field(200, ge=1, le=100_000, description="over these images")
    width: int = Field(
        192, ge=HEAD, le=4096, multiple_of=HEAD, description=f"of the tokens, {HEAD} for each head"
    )
    depth: int = Field(6, ge=1, le=100, description="blocks")
    seed: int = Field(0, ge=0, lt=2**32, description="of all random draws")
    rate: Positive = Field(2e-3, description="the largest learning rate")
    augment: Literal["strong", "weak"] = Field("strong", description="weak: only flips, shifts and mixing")
    batch: int = Field(1024, ge=1, description="images a step; an incomplete last batch is left out")
    compile: bool = Field(False, description="model and augmentation by torch.compile; on a GPU by default")


def build(classes: list[str], settings: Settings, cuda: bool) -> nn.Module:
    """The ViT before training. Unless "full", the encoder's linear layers have 8-bit activations."""
    torch.manual_seed(settings.seed)
    config = ViTConfig(
        hidden_size=settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.width // HEAD,
        intermediate_size=4 * settings.width,
        image_size=SIDE,
        patch_size=PATCH,
        **label_fields(classes),
    )
    config._attn_implementation = "sdpa" if cuda else "eager"  # as in ablate/models/pretrained.py
    model = ViTForImageClassification(config)
    for i, block in enumerate(model.vit.layers):
        block.dropout = StochasticDepth(
            DROP_PATH * i / max(1, settings.depth - 1), "row"
        )  # after each branch
    return quantized(model, settings.weights)


def quantized(model: nn.Module, weights: str) -> nn.Module:
    quantize_(model, {"vit.layers.*": LayerSpec(weights=weights, activation_bits=8)})
    return model


def rate(share: float) -> float:
    """The learning rate, as a fraction of the largest, after a share of the steps."""
    if share < WARMUP:
        return share / WARMUP
    cosine = 0.5 * (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP)))
    return FLOOR + (1 - FLOOR) * cosine


def optimizer_of(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW whose weight decay is on matrices only, not on CLS and position embeddings, (1, n, D)."""
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[parameter.ndim in (2, 4)].append(parameter)
    rows = [{"params": groups[decays], "weight_decay": decays * WEIGHT_DECAY} for decays in groups]
    return torch.optim.AdamW(rows, settings.rate, BETAS, fused=True)


class Pretraining:
    """What changes from step to step, in a state that can be restored: weights, moments and random draws.

    Nothing in a step waits for the device.

    Args:
        model: On the device to train on.
        images: Training images, of which `settings.images` are used. They are kept on the device.
        settings: Of the pre-training.

    Attributes:
        average: The model with averaged weights.
        done: Passes.
        seconds: Of training, without validation.
        rows: Of the validated passes.

    Raises:
        BadInput: There are fewer images than a batch has.
    """

    def __init__(self, model: nn.Module, images: Split, settings: Settings) -> None:
        self.model, self.settings, self.device = model, settings, next(model.parameters()).device
        chosen = subset(images.labels, settings.images, settings.seed)
        self.per_pass = len(chosen) // settings.batch  # steps
        if not self.per_pass:
            rule = f"batch must be at most the number of training images, {len(chosen):,}"
            raise BadInput(f"{rule}, but got {settings.batch:,}; give a smaller --batch or more --images")
        pixels = torch.from_numpy(images.images[chosen])  # (N, H, W, 3)
        self.pixels = pixels.permute(0, 3, 1, 2).contiguous().to(self.device)
        self.labels = torch.from_numpy(images.labels[chosen]).to(self.device)
        self.optimizer = optimizer_of(model, settings)
        self.average = copy.deepcopy(model)
        self._averages, self._weights = (list(each.parameters()) for each in (self.average, model))
        self.mix = mixing(model.config.num_labels, MIX)
        self.augment = Augment(PREPROCESS.mean, PREPROCESS.std, settings.augment == "strong").to(self.device)
        self.logits = Logits(model)
        if settings.compile:
            self.augment = torch.compile(self.augment, dynamic=False)
            self.logits = torch.compile(self.logits, mode="reduce-overhead", dynamic=False)
        self.step, self.done, self.seconds, self.rows = 0, 0, 0.0, list[dict[str, Any]]()

    def passes(self, validation: Split) -> Iterator[dict[str, Any]]:
        """Train to the end; after each pass yields its loss and speed and, where validated, its top-1."""
        while self.done < self.settings.passes:
            started = time.perf_counter()
            self.model.train()
            order = torch.randperm(len(self.labels), device=self.device)
            batches = order.split(self.settings.batch)[: self.per_pass]
            losses = torch.stack([self._step(batch) for batch in batches]).cpu()
            seconds = time.perf_counter() - started
            if (bad := (~losses.isfinite()).nonzero()).numel():
                step = self.step - len(losses) + int(bad[0]) + 1
                total = self.per_pass * self.settings.passes
                raise NonFinite(f"training loss is not finite at step {step} of {total}; give a lower --rate")
            self.done, self.seconds = self.done + 1, self.seconds + seconds
            row = {"pass": self.done, "loss": round(losses.mean().item(), 4), "seconds": round(seconds, 2)}
            row["images_per_second"] = round(len(losses) * self.settings.batch / seconds)
            if self.done % VALIDATED == 0 or self.done == self.settings.passes:
                row["top1"] = round(evaluate(self.average, validation, PREPROCESS, self.done).accuracy, 4)
                self.rows.append(row)
            yield row

    def _step(self, chosen: Tensor) -> Tensor:
        """Train on the chosen images, (B,). Returns the loss, on the device."""
        share = self.step / (self.per_pass * self.settings.passes)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * rate(share)
        draws = torch.rand(len(DRAWS), len(chosen), device=self.device)
        pixels, targets = self.augment(self.pixels[chosen], draws), self.labels[chosen]
        if share < MIXED_UNTIL:
            pixels, targets = self.mix(pixels, targets)
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.logits(pixels)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=SMOOTHING)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._weights, CLIP_NORM)
        self.optimizer.step()
        decay = min(AVERAGE, (1 + self.step) / (10 + self.step))
        with torch.no_grad():  # AveragedModel takes eight times as long to queue the same kernel
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        self.step += 1
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """A copy on the CPU, for `restore`."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        draws = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            draws["cuda"] = torch.cuda.get_rng_state()
        counts = {name: getattr(self, name) for name in ("step", "done", "seconds", "rows")}
        return tree_map_only(Tensor, lambda t: t.to("cpu", copy=True), {**parts, **counts, "random": draws})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, as if there had been no interruption."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name in ("step", "done", "seconds", "rows"):
            setattr(self, name, state[name])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"])

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "average": self.average, "optimizer": self.optimizer}


def serialized(state: dict[str, Any]) -> bytes:
    """The bytes of a state, for `torch.load`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
