"""Image folders: six small images in train/, val/ and test/, of which one is changed, or the folder is.

The oracle reads each file with Pillow and numpy by the documented rules: upright by EXIF, transparency on
white, 16 bits and floats by their whole range, the first frame. Where Pillow cannot decode a file, it must be
refused. In a mode that the rules leave open, only that it is refused or read without a fault is checked.
"""

import contextlib
import io
import struct
import zlib
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from fuzz_values import Input, Wrong, mangled
from PIL import Image, ImageOps
from transformers import ViTConfig, ViTForImageClassification

from ablate import pack
from ablate.data import image_folder
from ablate.engine.predict import predict
from ablate.models.preprocessing import Preprocess

SIDE = 8
MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "gif": ("L", "P", "RGB"),
    "bmp": ("1", "L", "P", "RGB"),
    "tif": ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB", "YCbCr"),
    "webp": ("RGB", "RGBA"),
    "ppm": ("L", "RGB", "1", "I;16"),
}
PLACES = [f"{split}/{name}/0" for split in ("train", "val", "test") for name in ("a", "b")]
ORIENTATION = 0x0112
BESIDE = [
    ".hidden.png",
    "Thumbs.db",
    "notes.txt",
    ".DS_Store",
    "B.PNG",
    "c.JPeG",
    "é.png",
    "e\u0301.png",
    "x.png~",
    "a.png.txt",
    "a b.png",
    "[x].png",
]
UPRIGHT = {  # EXIF 2.32, orientation; pixels (H, W, 3)
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels),
}
HEADS = 64  # bytes of a file in which its fields stand
LARGEST = 2**24  # pixels, of which this program writes a PNG within its seconds


class Target:
    """A folder of two classes and three splits."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder / "images"
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        model = ViTForImageClassification(
            ViTConfig(**sizes, image_size=SIDE, patch_size=4, num_labels=3)
        ).eval()
        self.model = folder / "packed"
        pack(
            model,
            self.model,
            preprocess=Preprocess((SIDE, SIDE), (SIDE, SIDE), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3),
        )
        self.plain = [_encoded(_array(Random(i), "RGB"), "RGB", "png") for i in range(len(PLACES))]

    def make(self, number: int, random: Random) -> Input:
        kind, place = random.choice([*MODES]), random.randrange(len(PLACES))
        mode = random.choice(MODES[kind])
        content = _encoded(_array(random, mode), mode, kind, random)
        way = random.random()
        if way < 0.3:  # another mode, format or orientation than the others'
            return Input("field", f"{kind} {mode}", content, (place, kind, ""))
        if way < 0.5 and kind == "png":
            return Input("field", "png chunk", _chunk_changed(content, random), (place, kind, ""))
        if way < 0.6:
            changed = bytearray(content)
            at = random.randrange(min(HEADS, len(changed)))
            changed[at] = random.choice((0, 1, 2, 3, 4, 8, 16, 32, 127, 128, 254, 255))
            return Input("field", f"{kind} byte {at}", bytes(changed), (place, kind, ""))
        if way < 0.7:
            return Input("field", "beside", content, (place, kind, random.choice(BESIDE)))
        content, what = mangled(content, random, self.plain[0])
        return Input("bytes", f"{kind} {mode} {what}", content, (place, kind, ""))

    def check(self, given: Input) -> None:
        place, kind, beside = given.of
        paths = [self.folder / f"{name}.png" for name in PLACES]
        for path, content in zip(paths, self.plain, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if beside:
            added = paths[place].with_name(beside)
        else:
            added = paths[place].with_name(f"0.{kind}")
            paths[place].unlink()
        added.write_bytes(given.content)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                classes, arrays = image_folder.read(self.folder, SIDE)
            self._check(classes, arrays, added)
            if zlib.crc32(given.content) % 10 == 0:
                self._check_predict(added)
        finally:
            added.unlink()

    def _check(self, classes: list[str], arrays: dict[str, Any], added: Path) -> None:
        """All images that are not hidden, each with its class, pixel for pixel."""
        if classes != ["a", "b"]:
            raise Wrong("other classes")
        files = [
            p
            for p in self.folder.rglob("*")
            if p.is_file() and p.suffix.lower() in _extensions() and not p.name.startswith(".")
        ]
        found = Counter(
            (label, pixels.tobytes())
            for images, labels in arrays.values()
            for pixels, label in zip(images, labels, strict=True)
        )
        expected = Counter()
        for path in files:
            if (pixels := _pixels(path)) is None:  # the rules leave it open: whatever was read
                known = expected + Counter(
                    (classes.index(p.parent.name), q.tobytes())
                    for p in files
                    if p != path and (q := _pixels(p)) is not None
                )
                return None if (found - known).total() == 1 else _raise("another number of images")
            expected[classes.index(path.parent.name), pixels.tobytes()] += 1
        if found != expected:
            raise Wrong(
                f"the pixels of a {added.suffix} file are not Pillow's"
                if found.total() == expected.total()
                else "another number of images"
            )

    def _check_predict(self, path: Path) -> None:
        """`ablate predict` sees in a file what it sees in a plain PNG of the pixels that the oracle reads."""
        upright = _upright(path) if path.suffix.lower() in _extensions() else None
        if upright is not None and upright.width * upright.height < LARGEST:
            upright.save(plain := self.folder.with_name("plain.png"))
            one, other = predict(self.model, [path, plain])
            if one != other:
                raise Wrong("predict reads other pixels")


def _raise(text: str) -> None:
    raise Wrong(text)


def _extensions() -> set[str]:
    Image.init()
    return {extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN}


def _pixels(path: Path) -> np.ndarray | None:
    """uint8 (SIDE, SIDE, 3) by the documented rules; else None. Raises Wrong where Pillow fails."""
    upright = _upright(path)
    return (
        None if upright is None else np.asarray(ImageOps.fit(upright, (SIDE, SIDE), Image.Resampling.BICUBIC))
    )


def _upright(path: Path) -> Image.Image | None:
    """In RGB, at its own size."""
    try:
        with Image.open(path) as image:
            image.load()
            exif = {} if image.format == "TIFF" else _exif(image)
            shown = _shown(image)
    except Wrong:
        raise
    except Exception as error:
        raise Wrong(f"read what Pillow does not: {type(error).__name__}") from None
    if shown is None:
        return None
    turn = UPRIGHT.get(exif.get(ORIENTATION, 1), lambda same: same)
    return Image.fromarray(np.ascontiguousarray(turn(np.asarray(shown.convert("RGB")))))


def _exif(image: Image.Image) -> Any:
    try:
        return image.getexif()
    except Exception:
        return {}


def _shown(image: Image.Image) -> Image.Image | None:
    """Composited on white, 8 bits a channel."""
    clear = image.info.get("transparency")
    if image.mode.startswith("I;16") and image.format in ("PNG", "PPM", "TIFF") and clear is None:
        tags = getattr(image, "tag_v2", {})
        if tags.get(339, (1,)) not in (1, (1,)) or tags.get(262, 1) != 1:
            return None
        return Image.fromarray(
            ((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        )
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise Wrong("floats beyond 0 to 1 were read")
        return Image.fromarray((values * np.float32(255) + np.float32(0.5)).astype(np.uint8))
    if image.mode in ("LA", "RGBA") or (clear is not None and image.mode in ("P", "L", "RGB", "1")):
        if image.format == "GIF" or (image.format == "PNG" and clear is not None and image.mode == "L"):
            # A frame may be smaller than its image. Levels below 8 bits are scaled, the clear one is not.
            return None
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    if image.mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB") and image.format != "GIF":
        return image.convert("RGB")
    return None


def _array(random: Random, mode: str) -> Image.Image:
    """An image of random blocks, 5 to 12 pixels a side."""
    rng = np.random.default_rng(random.randrange(2**32))
    height, width = random.choice(((SIDE, SIDE), (6, 11), (12, 5)))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 2**16, (height, width)).astype(np.uint16))
    if mode == "F":
        return Image.fromarray(rng.random((height, width), np.float32) * random.choice((1, 1, 1, 255)))
    pixels = Image.fromarray(rng.integers(0, 256, (height, width, 4)).astype(np.uint8), "RGBA")
    return (
        pixels
        if mode == "RGBA"
        else pixels.convert("RGB").convert(mode)
        if mode != "LA"
        else pixels.convert("LA")
    )


def _encoded(image: Image.Image, mode: str, kind: str, random: Random | None = None) -> bytes:
    options: dict[str, Any] = (
        {"quality": 95} if kind == "jpg" else {"lossless": True} if kind == "webp" else {}
    )
    if random and random.random() < 0.5 and kind in ("png", "jpg", "tif", "webp"):
        exif = Image.Exif()
        exif[ORIENTATION] = random.choice((*range(10), 65535))
        options["exif"] = exif
    if random and random.random() < 0.2 and kind in ("png", "gif") and mode in ("P", "L", "RGB", "1"):
        options["transparency"] = (1, 2, 3) if mode == "RGB" and kind == "png" else random.randrange(2)
    if random and random.random() < 0.2 and kind in ("gif", "webp", "tif") and mode == "RGB":
        options |= {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
    names = {"jpg": "JPEG", "tif": "TIFF"}
    image.save(held := io.BytesIO(), names.get(kind, kind.upper()), **options)
    return held.getvalue()


def _chunk_changed(content: bytes, random: Random) -> bytes:
    """A PNG with one byte of one chunk changed, its CRC made anew; or a chunk dropped or doubled."""
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    i = random.randrange(len(chunks))
    name, data = chunks[i]
    way = random.random()
    if way < 0.7 and data:
        changed = bytearray(data)
        changed[random.randrange(len(data))] = random.choice((0, 1, 2, 3, 4, 6, 8, 16, 128, 255))
        chunks[i] = (name, bytes(changed))
    elif way < 0.85:
        del chunks[i]
    else:
        chunks.insert(i, chunks[i])
    made = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return content[:8] + b"".join(made)
