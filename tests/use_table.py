"""The table of what users do with an nn.Module, its tiny models, and what comes of a use."""

import copy
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
import transformers
from torch import Tensor, nn

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_
from ablate.errors import BadInput
from ablate.models.loading import logits
from ablate.quantization.integer_linear import IntegerLinear

HERE = Path(__file__).parents[1]
KINDS = ("BitLinear", "packed")
PRECISIONS = {
    "*attention*": LayerSpec(weights="ternary", norm=True),
    "*mlp*": LayerSpec(weights="binary", signed=False, activation_scale="tensor", beta_per="channel"),
    "classifier": LayerSpec(weights="int8", activation_bits=None),
}
Does = Callable[[Any, Path], None]  # with a model, and a folder of its own


class Use(NamedTuple):
    does: Does
    note: str
    needs: str  # a package that this one does without
    kinds: tuple[str, ...]  # of models; for the others there is nothing to do


USES: dict[str, Use] = {}


def use(
    title: str, note: str = "", needs: str = "", kinds: tuple[str, ...] = KINDS
) -> Callable[[Does], Does]:
    """Enters a function into the table."""

    def enter(does: Does) -> Does:
        USES[title] = Use(does, note, needs, kinds)
        return does

    return enter


def row(title: str, folder: Path) -> dict[str, str]:
    """What comes of a use, by the kind of model."""
    return {kind: outcome(title, kind, folder / kind) for kind in KINDS}


def outcome(title: str, kind: str, folder: Path) -> str:
    """Whether it "works" or "warns", is "refused" by ablate or "refused by" a library; other faults raise."""
    if kind not in USES[title].kinds:
        return "-"
    folder.mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "There is a performance drop")  # torch's, of integers in vmap
        try:
            USES[title].does(make(kind), folder)
        except BadInput:
            return "refused"
        except AssertionError:
            raise
        except Exception as error:
            package = [*traceback.walk_tb(error.__traceback__)][-1][0].f_globals["__name__"].partition(".")[0]
            if package == "ablate" or package.startswith("use"):
                raise
            return f"refused by {package}"
    said = [Path(warning.filename) for warning in caught]
    ours = [path for path in said if path.is_relative_to(HERE) and "site-packages" not in path.parts]
    return "warns" if ours else "works"


def full() -> Any:
    """A ViT of one block in full precision."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**small, image_size=32, patch_size=16, num_labels=3)
    config._attn_implementation = "eager"  # torch's own attention has no forward-mode gradients
    return transformers.ViTForImageClassification(config).eval()


@cache
def _made(kind: str) -> Any:
    if kind == "BitLinear":
        quantize_(model := full(), PRECISIONS)
        return model
    with tempfile.TemporaryDirectory() as folder:
        pack(make("BitLinear"), folder)
        return load_packed(folder)


def make(kind: str) -> Any:
    """A copy of the quantized model, or of the one that is loaded from its packed files."""
    return copy.deepcopy(_made(kind))


def is_packed(model: nn.Module) -> bool:
    return isinstance(layers(model)[0], IntegerLinear)


def pixels(n: int = 4) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, BitLinear | IntegerLinear)]


def same(model: nn.Module, other: nn.Module, tolerance: float = 0.0) -> None:
    """Asserts that two models have quantized layers and equal logits."""
    assert len(layers(model)) == len(layers(other)) > 0
    with torch.no_grad():
        torch.testing.assert_close(logits(other, pixels()), logits(model, pixels()), rtol=0, atol=tolerance)


def step(model: nn.Module, x: Tensor | None = None) -> None:
    """Trains on a batch, and asserts that each quantized layer has a gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    logits(model.train(), pixels() if x is None else x).square().sum().backward()
    assert all(layer.weight.grad.isfinite().all() and layer.weight.grad.any() for layer in layers(model))
    optimizer.step()


@contextmanager
def process_group(folder: Path) -> Iterator[None]:
    """A process group of this process alone, on CPUs."""
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
