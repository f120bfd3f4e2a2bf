"""Writes checkpoints and packed models of all families but timm's, or reads them, by a transformers.

python across_versions.py write|read FOLDER     prints what came out, by family, as JSON
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from families import FAMILIES, build, pixels, quantized
from timm_families import TIMM
from torch import nn

from ablate import load_packed, pack
from ablate.models import digests, loading

LABELS = [f"LABEL_{i}" for i in range(10)]


def logits(model: nn.Module, family: str) -> list[list[float]]:
    with torch.no_grad():
        return loading.logits(model, pixels(family)).tolist()


def write(family: str, folder: Path) -> None:
    """A checkpoint and a packed model with its logits; nothing where this version cannot make one."""
    side = FAMILIES[family][1]
    try:
        model = quantized(family)
        expected = logits(model, family)
        build(family).save_pretrained(folder / "checkpoint")
    except (AttributeError, ImportError, RuntimeError):  # no class of transformers, no natten, no images
        return
    size = {"height": side, "width": side}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder / "checkpoint")
    pack(model, folder / "packed")
    (folder / "logits.json").write_text(json.dumps(expected))


def read(family: str, folder: Path) -> dict[str, Any]:
    """The checkpoint's digest, and the packed model's logits, as they were and as they are, or why not."""
    found: dict[str, Any] = {"digest": digests.digest(str(folder / "checkpoint"))}
    try:
        found["logits"] = [
            json.loads((folder / "logits.json").read_text()),
            logits(load_packed(folder / "packed"), family),
        ]
    except Exception as error:
        found["error"] = str(error)
    return found


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"version": transformers.__version__}
    for family in [family for family in FAMILIES if family not in TIMM]:
        place = folder / "".join(letter for letter in family if letter.isalnum())
        if what == "write":
            write(family, place)
        elif (place / "logits.json").exists():
            found[family] = read(family, place)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
