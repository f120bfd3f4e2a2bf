"""Decodes one image file to the pixels that a viewer shows, upright and in RGB, or says why it cannot.

- The image is turned as its EXIF says.
- Transparent pixels are shown on white.
- 16-bit grey: the range 0 to 65,535 becomes 0 to 255, whatever the image's own extremes are. The same holds
  for 12 bits, and for 16 bits a channel of colour.
- Floats: 0 to 1 becomes 0 to 255. Other floats, 32-bit and signed integers are refused: their range is not
  agreed on.
- Of animations and files of several pages the first frame is taken. CMYK and LAB are converted by Pillow's
  formulas.
- Colour profiles (ICC) and gamma are not applied, as in the pipelines that pre-trained models come from.
- The content of a file decides, not its extension. Truncated files are refused, and images that take too much
  memory.
"""

import threading
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ablate.hardware import cpus, memory_bytes

OTHERS = {"EPS", "MPEG"}  # registered by Pillow, but EPS needs Ghostscript, and nothing decodes MPEG
NAMED = ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP")  # recognised by their first bytes
# by mode, the formats whose values are from 0 to 65,535
UNSIGNED = {"I": {"PNG", "PPM"}, "I;16": {"PNG", "PPM", "TIFF", "JPEG2000", "IM"}}
TURNS = {  # EXIF orientation -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION, PHOTOMETRIC, SAMPLE_FORMAT = 0x0112, 262, 339  # tags of EXIF and TIFF
BYTES_PER_PIXEL = 16  # while it is decoded: in its own mode, as float32, RGBA and RGB
MEMORY_SHARE = 0.4  # of the memory of this process, for one image
Source = Path | bytes  # a file, or what is in it
ALONE = threading.Lock()  # for an image so large that memory does not hold one for each CPU
ADVICE = "save it with 8 or 16 bits"


class Refused(ValueError):
    """What is wrong with an image file; the message becomes part of a sentence."""


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        image: Upright, in RGB.
        changes: How it differs from the file as it is stored, in a few words each.
    """

    image: Image.Image
    changes: tuple[str, ...]


def extensions() -> frozenset[str]:
    """Return the extensions of the formats that Pillow decodes by itself: ".jpg" and so on, in lower case."""
    known = set(formats())
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in known)


def formats() -> list[str]:
    """Return the formats that Pillow decodes by itself."""
    Image.init()

    def is_stub(factory: object) -> bool:
        return isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)

    stubs = {name for name, (factory, _) in Image.OPEN.items() if is_stub(factory)}
    return [name for name in Image.ID if name not in stubs | OTHERS]


def size(source: Source) -> tuple[int, int]:
    """Read (width, height) of the upright image from the file's head. Raises what `decode` raises."""
    with _opened(source) as image:
        if image.format == "PNG" and "exif" not in image.info:
            # EXIF may follow the pixels, which Pillow would decode to reach it
            raw = source.read_bytes() if isinstance(source, Path) else source
            if not any(word in raw for word in (b"eXIf", b"Raw profile type exif", b"tiff:Orientation")):
                return image.size
        return image.size[::-1] if _orientation(image) >= 5 else image.size


def decode(source: Source) -> Decoded:
    """Decode a file. Raises Refused, or one of Pillow's several kinds of errors; see `reason`."""
    with _opened(source) as image, _room_for(image):
        changes = ["of several frames or pages, the first"] if getattr(image, "is_animated", False) else []
        shown = _in_rgb(image, changes)
        if (orientation := _orientation(image)) in TURNS:
            changes.append("turned as EXIF says")
            shown = shown.transpose(TURNS[orientation])
        return Decoded(shown, tuple(changes))


def reason(error: Exception, source: Source) -> str:
    """Say what is wrong with a file, in one line.

    Args:
        error: What `size` or `decode` raised.
        source: The file.
    """
    if isinstance(error, UnidentifiedImageError):
        name = _format_of(source)
        return f"a {name} file that is broken or of a kind that Pillow does not read" if name else "no image"
    if isinstance(error, Image.DecompressionBombError):
        return f"an image of more than {_most_pixels() / 1e6:.0f} million pixels; make it smaller"
    message = (isinstance(error, OSError) and error.strerror) or str(error)
    return " ".join(message.split()) or type(error).__name__


def _format_of(source: Source) -> str | None:
    """The format that the first bytes of a file claim."""
    with source.open("rb") if isinstance(source, Path) else BytesIO(source) as file:
        head = file.read(16)
    for name in NAMED:
        accepts = Image.OPEN[name][1]
        if accepts and head and accepts(head) is True:
            return name
    return None


def _room_for(image: Image.Image) -> AbstractContextManager[object]:
    """Within the context the image may be decoded: one at a time where it is large."""
    return ALONE if image.width * image.height * cpus() > _most_pixels() else nullcontext()


def _most_pixels() -> int:
    return min(2 * (Image.MAX_IMAGE_PIXELS or 2**27), int(MEMORY_SHARE * memory_bytes() / BYTES_PER_PIXEL))


def _opened(source: Source) -> ImageFile.ImageFile:
    image = Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats())
    if image.width * image.height > _most_pixels():
        image.close()
        raise Image.DecompressionBombError
    return image


def _orientation(image: ImageFile.ImageFile) -> int:
    """1 to 8, by EXIF; 1 where it is lacking or broken, and where Pillow turns by itself."""
    if image.format == "TIFF":
        return 1
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # broken EXIF; Pillow raises many kinds
        return 1
    return orientation if orientation in TURNS else 1


def _in_rgb(image: ImageFile.ImageFile, changes: list[str]) -> Image.Image:
    """Composited on white, at 8 bits a channel."""
    extents = image.tile[0].extents if image.format == "GIF" and image.tile else None  # of the first frame
    tags, raw = getattr(image, "tag_v2", {}), _rawmode(image)
    clear = image.info.get("transparency")
    if 2 in np.ravel(tags.get(SAMPLE_FORMAT, 1)):
        raise Refused(f"signed integers, which have no range that all agree on; {ADVICE}")
    if raw.startswith("RGB;16") and clear is not None:
        raise Refused("16 bits a channel with one transparent colour; save it with an alpha channel")
    image.load()
    if image.mode.startswith(("I", "F")):
        grey, alpha = _grey(image, raw, inverted=tags.get(PHOTOMETRIC) == 0)
        shown: Image.Image = Image.fromarray(grey)
        if alpha is not None:
            shown.putalpha(Image.fromarray(alpha))
    else:
        # Pillow scales the pixels, but not the value of the transparent one.
        if raw in ("L;2", "L;4") and clear is not None:
            image.info["transparency"] = clear * (85 if raw == "L;2" else 17)
        shown = image
    if not shown.has_transparency_data and extents in (None, (0, 0, *shown.size)):
        return shown.convert("RGB")
    shown = shown.convert("RGBA")
    if extents not in (None, (0, 0, *shown.size)):  # what a first frame leaves out is transparent
        frame = shown.crop(extents)
        shown = Image.new("RGBA", shown.size)
        shown.paste(frame, extents)
    if shown.getchannel("A").getextrema()[0] != 255:
        changes.append("shown on white")
    return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Pillow's name for how the pixels are stored; "" where it gives none."""
    arguments: Any = image.tile[0].args if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _grey(image: Image.Image, raw: str, inverted: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """uint8 (H, W) of an image of more than 8 bits a pixel, and its alpha."""
    values = np.asarray(image)  # (H, W)
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # NaN is refused, too
            raise Refused(
                f"floats of {values.min():g} to {values.max():g}, but only 0 to 1 is known; {ADVICE}"
            )
        grey = (values * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    elif image.format not in UNSIGNED.get(image.mode, UNSIGNED["I;16"]):
        raise Refused(f"integers of a {image.format} file, which have no range that all agree on; {ADVICE}")
    else:
        top = 4095 if raw == "I;12" else 65535
        grey = ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    clear = image.info.get("transparency")
    alpha = None if clear is None else np.where(values == clear, 0, 255).astype(np.uint8)
    return 255 - grey if inverted else grey, alpha
