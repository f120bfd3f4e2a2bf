"""Models of torchvision: the paper's baselines (ResNet-18, VGG-16), ViT-B/16 and Swin-T.

A plain name starts from ImageNet weights, NAME:random from random ones.
"""

import hashlib
import json
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablate.config.builtin import KNOWN
from ablate.downloads import download
from ablate.errors import BadInput, missing

PRETRAINED = {name for name in KNOWN if not name.endswith((":random", "-32"))}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which all these weights ask for


@dataclass(frozen=True)
class Named:
    """The `config` of a model of torchvision: all that it takes to build it again."""

    name: str
    id2label: dict[int, str]


def build(name: str, labels: list[str], weights: bool = True) -> nn.Module:
    """Build a model with a new head, its values from torch's random generator.

    Args:
        name: One of `builtin.KNOWN`.
        labels: Names of the outputs.
        weights: Load ImageNet's weights, but for the head, where the name asks for them.

    Returns:
        The model in evaluation mode; its `config` is a `Named`.

    Raises:
        BadInput: The weights are not in torch's cache and cannot be downloaded.
    """
    try:
        from torchvision.models import get_model
    except ModuleNotFoundError as error:
        raise missing(error) from None
    base = name.removesuffix(":random").removesuffix("-32")
    model: Any = _vgg16_32() if name == "vgg16-32" else get_model(base)
    if weights and name in PRETRAINED:
        _load_imagenet(model, name)
    if name == "resnet18-32":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    head = head_of(model)
    parent, _, child = head.rpartition(".")
    layer = nn.Linear(model.get_submodule(head).in_features, len(labels))
    setattr(model.get_submodule(parent), child, layer)
    model.config = Named(name, dict(enumerate(labels)))
    return model.eval()


def _vgg16_32() -> nn.Module:
    from torchvision.models.vgg import cfgs, make_layers

    features = make_layers(cfgs["D"], batch_norm=True)  # (B, 512, 1, 1) from 32 px
    parts = {
        "features": features,
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(512, 10),
    }
    return nn.Sequential(OrderedDict(parts))


def from_config(name: str, config: dict[str, Any]) -> nn.Module:
    """Build a model without values, on the meta device.

    Args:
        name: One of `builtin.KNOWN`.
        config: The fields of a `Named`, as JSON gives them back, without its name.

    Returns:
        The model.

    Raises:
        BadInput: The configuration is none of these.
    """
    labels = config.get("id2label")
    is_numbered = isinstance(labels, dict) and {*labels} == {str(i) for i in range(len(labels))}
    if set(config) != {"id2label"} or not isinstance(labels, dict) or not is_numbered:
        rule = "must be its labels, numbered from 0"
        raise BadInput(f"the configuration of {name!r} {rule}; pack the model again")
    with torch.device("meta"):
        return build(name, [str(labels[str(i)]) for i in range(len(labels))], weights=False)


def digest(name: str) -> str:
    """sha256 of what a trial starts from: ImageNet's values, or shapes alone where values are random."""
    pretrained = name in PRETRAINED
    with torch.random.fork_rng(), torch.device("cpu" if pretrained else "meta"):
        model = build(name, ["one"])
    values, head = model.state_dict(), f"{head_of(model)}."
    shapes = {key: [*value.shape] for key, value in values.items() if not key.startswith(head)}
    about = [name.removesuffix(":random"), pretrained, shapes, image_processing(name)]
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for key in sorted(shapes) if pretrained else ():
        sha.update(values[key].contiguous().numpy().tobytes())
    return sha.hexdigest()


def head_of(model: nn.Module) -> str:
    """The name of the last linear layer."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def image_processing(name: str) -> dict[str, Any]:
    """The fields of a model's `Preprocess`.

    Images are resized to the model's size, as in the paper's section 2.4 and as by ViT's own image processor.
    torchvision's transforms would resize further and crop the border.
    """
    side = 32 if name.endswith("-32") else 224
    interpolation = "bicubic" if name.startswith("swin_t") else "bilinear"
    size = (side, side)
    return {
        "size": size,
        "resize": size,
        "interpolation": interpolation,
        "scale": 1 / 255,
        "mean": MEAN,
        "std": STD,
    }


def checkpoint(name: str) -> Path:
    """The file of a model's ImageNet weights in torch's cache, whether it exists or not."""
    from torchvision.models import get_model_weights

    url: str = get_model_weights(name).DEFAULT.url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _load_imagenet(model: nn.Module, name: str) -> None:
    from torchvision.models import get_model_weights

    url = get_model_weights(name).DEFAULT.url
    path = checkpoint(name)
    try:
        if not path.exists():
            _fetch(url, path)
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # the network, the disk and a broken file each raise their own kind
        cause = getattr(error, "reason", error)  # URLError has one
        reason = str(cause).partition("\n")[0].partition(". ")[0]
        mend = f"put {path.name} into {path.parent}, or give {name}:random"
        fault = f"its ImageNet weights, {url}: {reason}"
        raise BadInput(f"cannot load model {name!r}: {fault}; {mend}") from None


def _fetch(url: str, path: Path) -> None:
    """Download weights and check them by the digest in their name; `path` appears once they are complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        download(url, part := Path(folder) / path.name)
        digest, expected = hashlib.sha256(part.read_bytes()).hexdigest(), path.stem.rpartition("-")[2]
        if not digest.startswith(expected):
            raise OSError(f"sha256 must begin with {expected}, but the download's is {digest[:12]}")
        part.replace(path)
