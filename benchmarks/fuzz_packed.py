"""Packed folders: a small ViT whose header or tensors are changed, with the old digest or with one that fits.

With the old digest nothing that was changed may load. With a new one it is another file: what loads must say
what the file says, must run, and must give the original's logits where only labels or image processing
differ.
"""

import hashlib
import json
import math
import struct
from pathlib import Path
from random import Random
from typing import Any

import torch
from fuzz_values import Input, Wrong, as_json, changed, mangled, same
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from ablate import LayerSpec, load_packed, pack, quantize_
from ablate.engine.predict import predict
from ablate.models.loading import logits
from ablate.models.preprocessing import Preprocess
from ablate.quantization.packed_files import read
from ablate.quantization.packed_header import FIELD, of_config
from ablate.quantization.packed_loading import load_preprocess

HEADER, TENSORS = "config.json", "model.safetensors"
LAYERS: list[dict[str, Any]] = [
    {
        "*.fc1": LayerSpec(weights="binary"),
        "*attention*": LayerSpec(weights="ternary", beta_per="channel", norm=True),
    },
    {
        "*.fc1": LayerSpec(weights="int4"),
        "*.fc2": LayerSpec(weights="int8", activation_bits=None),
        "classifier": LayerSpec(weights="binary", signed=False, activation_bits=4),
    },
]
FIELDS = [
    *LayerSpec.model_fields,
    *Preprocess.__dataclass_fields__,
    "format",
    "dtype",
    "layers",
    "model",
    "config",
    "hidden_size",
    "num_labels",
    "auto_map",
    "_x",
]


class Target:
    """Two packed models of one block and width 16, changed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.files, self.logits = folder / "packed", [], []
        torch.set_num_threads(1)
        self.pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        for layers in LAYERS:
            torch.manual_seed(0)
            sizes = {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            }
            model = ViTForImageClassification(
                ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=3)
            ).eval()
            names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
            some = {
                pattern: spec
                for pattern, spec in layers.items()
                if any(Path(name).match(pattern) for name in names)
            }
            quantize_(model, some)
            pack(
                model,
                self.folder,
                preprocess=Preprocess((16, 16), (16, 16), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3),
            )
            self.files.append({name: (self.folder / name).read_bytes() for name in (HEADER, TENSORS)})
            with torch.inference_mode():
                self.logits.append(logits(load_packed(self.folder), self.pixels))
        Image.new("RGB", (20, 12), (10, 200, 30)).save(self.folder / "image.png")

    def make(self, number: int, random: Random) -> Input:
        base = random.randrange(2)
        header, tensors = self.files[base][HEADER], self.files[base][TENSORS]
        way, fresh = random.random(), random.random() < 0.5
        if way < 0.55:
            data, what = changed(json.loads(header), random, FIELDS)
            return Input(
                "field", what, _signed(data, tensors) if fresh else _spelled(data), (base, HEADER, fresh)
            )
        if way < 0.75:
            length = struct.unpack("<Q", tensors[:8])[0]
            about, what = changed(
                json.loads(tensors[8 : 8 + length]),
                random,
                ["dtype", "shape", "data_offsets", "__metadata__", "x"],
            )
            text = as_json(about)
            return Input(
                "field",
                what,
                struct.pack("<Q", len(text)) + text + tensors[8 + length :],
                (base, TENSORS, fresh),
            )
        name = random.choice((HEADER, TENSORS))
        content, what = mangled(self.files[base][name], random, self.files[1 - base][name])
        return Input("bytes", what, content, (base, name, fresh and name == TENSORS))

    def check(self, given: Input) -> None:
        base, name, fresh = given.of
        files = self.files[base] | {name: given.content}
        if fresh and name == TENSORS:
            files[HEADER] = _signed(json.loads(files[HEADER]), given.content)
        for each, content in files.items():
            (self.folder / each).write_bytes(content)
        header, _ = read(self.folder)
        model = load_packed(self.folder)
        with torch.inference_mode():
            out = logits(model, self.pixels)
        data, original = (of_config(json.loads(each[HEADER])) for each in (files, self.files[base]))
        if not same({key: value for key, value in data.items() if value is not None}, header.model_dump()):
            raise Wrong("the header is not held as it stands in the file")
        if not fresh and files != self.files[base]:
            raise Wrong("files that were changed were loaded")
        if out.shape[0] != len(self.pixels) or out.ndim != 2:
            raise Wrong("the logits are not (images, classes)")
        if (
            _computing(data) == _computing(original)
            and files[TENSORS] == self.files[base][TENSORS]
            and not out.equal(self.logits[base])
        ):
            raise Wrong("the logits are not the original's")
        if (
            header.preprocess is not None
            and max(header.preprocess.size) * max(1, len(str(header.preprocess.resize)) // 8) < 2000
        ):
            processed = load_preprocess(self.folder)(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
            if tuple(processed.shape[-2:]) != tuple(header.preprocess.size):
                raise Wrong("the image processing gives another size than it says")
            if tuple(header.preprocess.size) == (16, 16):
                [(_, share)] = predict(self.folder, [self.folder / "image.png"])
                if not 0 <= share <= 1 and not math.isnan(share):
                    raise Wrong("a probability is outside [0, 1]")


def _computing(data: dict[str, Any]) -> Any:
    """What of a header decides the logits."""
    model = data["model"]
    config = {key: value for key, value in model["config"].items() if key not in ("id2label", "label2id")}
    return data["layers"], data["dtype"], {**model, "config": config}


def _spelled(data: Any) -> bytes:
    """As `pack` spells JSON, but for what it would refuse."""
    return (
        as_json(json.loads(json.dumps(data, sort_keys=True, default=str)))
        if isinstance(data, dict)
        else as_json(data)
    )


def _signed(data: Any, tensors: bytes) -> bytes:
    """A configuration with the digest that fits."""
    if isinstance(own := data.get(FIELD), dict):
        plain = {key: value for key, value in of_config(data).items() if key != "sha256"}
        digest = hashlib.sha256(_spelled(plain) + tensors).hexdigest()
        data = {**data, FIELD: {**own, "sha256": digest}}
    return _spelled(data)
