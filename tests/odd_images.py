"""Small odd image files, made here, and what each shows: its known pixels, or why it is refused.

The pixels are those that Pillow documents or a browser shows, computed with NumPy alone.
"""

import io
import os
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

WIDE, HIGH = 8, 6


class Odd(NamedTuple):
    name: str
    data: bytes
    shown: np.ndarray | str  # uint8 (H, W, 3), or a part of the reason for which it is refused
    near: int = 0  # by how much a value may differ
    browser: bool = True  # Chromium shows it in the same way


def photo(wide=WIDE, high=HIGH):
    """No two of its corners, rows or columns are equal: (high, wide, 3)."""
    y, x = np.mgrid[:high, :wide]
    return np.stack([x * 250 // wide, y * 250 // high, 30 + 0 * x], axis=2).astype(np.uint8)


PHOTO = photo()
BLOCKS = np.kron(photo(4, 3), np.ones((16, 16, 1), np.uint8))  # for lossy formats: (48, 64, 3)
FINE = {"quality": 95, "subsampling": 0}  # of JPEG
GREY = np.arange(WIDE * HIGH).reshape(HIGH, WIDE)  # 0 to 47
STORED = {  # EXIF orientation -> how the upright image is stored
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))).save(
        file, form, **options
    )
    return file.getvalue()


def grey(values):
    """An image of one channel as it is shown."""
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, axis=2)


def on_white(rgb, alpha):
    """Composited by the formula: (H, W, 3), rounded."""
    share = np.asarray(alpha, float)[:, :, None] / 255
    return np.round(rgb * share + 255 * (1 - share)).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(wide, high, depth, colour, rows, *before, after=b""):
    """A PNG by hand: `rows` as they are stored, chunks before and after the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", wide, high, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + pixels + after + chunk(b"IEND", b"")


def tiff(data, wide, high, photometric, bits, kind=1, channels=1, **extra):
    """An uncompressed TIFF; `kind`: 1 unsigned, 2 signed, 3 float; `extra`: tags by number, of 16 bits."""
    tags = {
        256: [wide],
        257: [high],
        258: [bits] * channels,
        259: [1],
        262: [photometric],
        273: [0],
        277: [channels],
    }
    tags |= {278: [high], 279: [len(data)], 339: [kind] * channels} | {
        int(key[1:]): value for key, value in extra.items()
    }
    start = 8 + 2 + 12 * len(tags) + 4
    entries, far = b"", b""
    tags[273] = [start + sum(2 * len(value) for value in tags.values() if len(value) > 2)]
    for key, value in sorted(tags.items()):
        packed = struct.pack(f"<{len(value)}H", *value)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", start + len(far))
        entries += struct.pack("<HHI", key, 3, len(value)) + place
        far += packed if len(packed) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + far + data


def turned():
    """All orientations in JPEG, and two in the other formats that can hold them."""
    for orientation, store in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield Odd(f"turned {orientation}.jpg", saved(store(BLOCKS), "JPEG", **FINE, exif=exif), BLOCKS, 8)
        if orientation in (4, 6):
            pixels = store(PHOTO)
            yield Odd(f"turned {orientation}.png", saved(pixels, exif=exif), PHOTO, browser=False)
            yield Odd(
                f"turned {orientation}.webp",
                saved(pixels, "WEBP", lossless=True, exif=exif),
                PHOTO,
                browser=False,
            )  # Chromium ignores it
            data = tiff(pixels.tobytes(), *pixels.shape[1::-1], 2, 8, channels=3, t274=[orientation])
            yield Odd(f"turned {orientation}.tif", data, PHOTO, browser=False)
            deflated = saved(pixels, "TIFF", compression="tiff_deflate", exif=exif)
            yield Odd(f"turned {orientation} deflated.tif", deflated, PHOTO, browser=False)
    exif = Image.Exif()
    exif[0x0112] = 8
    rows = [row.tobytes() for row in STORED[8](PHOTO)]
    late = chunk(b"eXIf", exif.tobytes()[6:] if exif.tobytes().startswith(b"Exif") else exif.tobytes())
    yield Odd(
        "turned, said behind the pixels.png", png(HIGH, WIDE, 8, 2, rows, after=late), PHOTO, browser=False
    )
    exif[0x0112] = 9
    yield Odd("turned by no orientation.jpg", saved(BLOCKS, "JPEG", **FINE, exif=exif), BLOCKS, 8)
    broken = saved(BLOCKS, "JPEG", **FINE, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    yield Odd("broken EXIF.jpg", broken, BLOCKS, 8)


def deep():
    """More than 8 bits a pixel, and kinds without a range."""
    ramp = np.linspace(0, 65535, WIDE * HIGH).reshape(HIGH, WIDE).round().astype(np.uint16)
    shown = grey(np.round(ramp / 65535 * 255))
    yield Odd("16 bits.png", saved(ramp), shown, 1)
    yield Odd("16 bits.pgm", b"P5 8 6 65535\n" + ramp.astype(">u2").tobytes(), shown, 1, browser=False)
    yield Odd("10 bits.pgm", b"P5 8 6 1023\n" + (ramp // 64).astype(">u2").tobytes(), shown, 1, browser=False)
    yield Odd("16 bits.jp2", saved(ramp, "JPEG2000"), shown, 1, browser=False)
    yield Odd("16 bits.tif", tiff(ramp.astype("<u2").tobytes(), WIDE, HIGH, 1, 16), shown, 1, browser=False)
    yield Odd(
        "16 bits, big-endian.tif", saved(Image.fromarray(ramp.astype(">u2")), "TIFF"), shown, 1, browser=False
    )
    yield Odd(
        "16 bits, white is 0.tif",
        tiff(ramp.astype("<u2").tobytes(), WIDE, HIGH, 0, 16),
        255 - shown,
        1,
        browser=False,
    )
    twelve = "".join(f"{value >> 4:012b}" for value in ramp.ravel())
    packed = int(twelve, 2).to_bytes(len(twelve) // 8, "big")
    yield Odd("12 bits.tif", tiff(packed, WIDE, HIGH, 1, 12), shown, 1, browser=False)
    colour = (PHOTO.astype(np.uint16) * 257).astype(">u2")
    yield Odd("16 bits of colour.png", png(WIDE, HIGH, 16, 2, [row.tobytes() for row in colour]), PHOTO)
    little = colour.astype("<u2").tobytes()
    yield Odd("16 bits of colour.tif", tiff(little, WIDE, HIGH, 2, 16, channels=3), PHOTO, browser=False)
    keyed = png(WIDE, HIGH, 16, 2, [row.tobytes() for row in colour], chunk(b"tRNS", bytes(6)))
    yield Odd("16 bits, one clear.png", keyed, "with one transparent colour")
    part = (ramp / 65535).astype("<f4")
    yield Odd("floats to 1.tif", tiff(part.tobytes(), WIDE, HIGH, 1, 32, 3), shown, 1, browser=False)
    yield Odd("floats to 255.tif", tiff((part * 255).tobytes(), WIDE, HIGH, 1, 32, 3), "floats of 0 to 255")
    yield Odd("floats below 0.tif", tiff((part - 1).tobytes(), WIDE, HIGH, 1, 32, 3), "floats of -1 to 0")
    holed = part.copy()
    holed[2, 3] = np.nan
    yield Odd("floats with a gap.tif", tiff(holed.tobytes(), WIDE, HIGH, 1, 32, 3), "floats of nan to nan")
    yield Odd("doubles.tif", tiff(part.astype("<f8").tobytes(), WIDE, HIGH, 1, 64, 3), "a TIFF file")
    yield Odd(
        "floats of colour.tif", tiff(np.repeat(part, 3).tobytes(), WIDE, HIGH, 2, 32, 3, 3), "a TIFF file"
    )
    yield Odd("32 bits.tif", tiff(ramp.astype("<u4").tobytes(), WIDE, HIGH, 1, 32), "integers of a TIFF file")
    yield Odd("signed 16 bits.tif", tiff(ramp.tobytes(), WIDE, HIGH, 1, 16, 2), "signed integers")
    yield Odd("signed 8 bits.tif", tiff(bytes(48), WIDE, HIGH, 1, 8, 2), "signed integers")


def clear():
    """Kinds of transparency."""
    alpha = (GREY * 5).astype(np.uint8)
    both = np.dstack([PHOTO, alpha])
    yield Odd("RGBA.png", saved(both), on_white(PHOTO, alpha), 1)
    yield Odd("RGBA.webp", saved(both, "WEBP", lossless=True, exact=True), on_white(PHOTO, alpha), 1)
    yield Odd(
        "RGBA.tif",
        tiff(both.tobytes(), WIDE, HIGH, 2, 8, 1, 4, t338=[2]),
        on_white(PHOTO, alpha),
        1,
        browser=False,
    )
    opaque = np.dstack([PHOTO, np.full((HIGH, WIDE), 255, np.uint8)])
    yield Odd("opaque.png", saved(opaque), PHOTO)
    yield Odd("wholly clear.png", saved(np.zeros((HIGH, WIDE, 4), np.uint8)), np.full_like(PHOTO, 255))
    yield Odd("LA.png", saved(Image.fromarray(np.dstack([alpha, alpha]))), on_white(grey(alpha), alpha), 1)
    sixteen = np.dstack([alpha.astype(np.uint16) * 257] * 2).astype(">u2")
    rows = [row.tobytes() for row in sixteen]
    yield Odd("16 bits, LA.png", png(WIDE, HIGH, 16, 4, rows), on_white(grey(alpha), alpha), 1)
    colours = np.stack([np.arange(48) * 5, 255 - np.arange(48) * 5, np.full(48, 9)], axis=1).astype(np.uint8)
    palette, indices = chunk(b"PLTE", colours.tobytes()), [row.astype(np.uint8).tobytes() for row in GREY]
    yield Odd("palette.png", png(WIDE, HIGH, 8, 3, indices, palette), colours[GREY])
    shares = chunk(b"tRNS", bytes(range(0, 240, 5)))
    yield Odd(
        "palette, clear.png",
        png(WIDE, HIGH, 8, 3, indices, palette, shares),
        on_white(colours[GREY], alpha),
        1,
    )
    one = chunk(b"tRNS", bytes([255, 255, 0]))
    seen = np.where(GREY == 2, 0, 255)
    yield Odd(
        "palette, one clear.png", png(WIDE, HIGH, 8, 3, indices, palette, one), on_white(colours[GREY], seen)
    )
    rows = [row.tobytes() for row in PHOTO]
    key = chunk(b"tRNS", struct.pack(">HHH", *map(int, PHOTO[2, 3])))
    seen = np.where((PHOTO[2, 3] == PHOTO).all(axis=2), 0, 255)
    yield Odd("colour, one clear.png", png(WIDE, HIGH, 8, 2, rows, key), on_white(PHOTO, seen))
    for depth in (1, 2, 4):
        top = 2**depth - 1
        values = GREY % (top + 1)
        rows = [int("".join(f"{v:0{depth}b}" for v in row), 2).to_bytes(depth, "big") for row in values]
        shown = grey(values * 255 // top)
        yield Odd(f"grey of {depth} bits.png", png(WIDE, HIGH, depth, 0, rows), shown)
        key = chunk(b"tRNS", struct.pack(">H", 0))
        yield Odd(
            f"grey of {depth} bits, black clear.png",
            png(WIDE, HIGH, depth, 0, rows, key),
            on_white(shown, np.where(values == 0, 0, 255)),
        )
        key = chunk(b"tRNS", struct.pack(">H", 1))
        clear = on_white(shown, np.where(values == 1, 0, 255))
        yield Odd(f"grey of {depth} bits, 1 clear.png", png(WIDE, HIGH, depth, 0, rows, key), clear)
    wide = (GREY * 257 * 5).astype(">u2")
    key = chunk(b"tRNS", struct.pack(">H", 257 * 5 * 20))
    shown = on_white(grey(GREY * 5), np.where(GREY == 20, 0, 255))
    yield Odd(
        "16 bits, a grey clear.png", png(WIDE, HIGH, 16, 0, [row.tobytes() for row in wide], key), shown
    )


def moving():
    """Animations, whose first frame counts; one that covers a part of its screen."""
    frames = [Image.fromarray(a) for a in (PHOTO, 255 - PHOTO)]
    more = {"save_all": True, "append_images": frames[1:], "duration": 100}
    yield Odd("moving.png", saved(frames[0], **more), PHOTO)
    yield Odd("moving.webp", saved(frames[0], "WEBP", lossless=True, **more), PHOTO)
    few = [Image.fromarray(a.astype(np.uint8), "P") for a in (GREY, GREY[::-1])]
    colours = np.stack([np.arange(256), 255 - np.arange(256), np.full(256, 9)], axis=1).astype(np.uint8)
    for each in few:
        each.putpalette(colours.tobytes())
    yield Odd(
        "moving.gif",
        saved(few[0], "GIF", save_all=True, append_images=few[1:], optimize=False),
        colours[GREY],
    )
    part = bytearray(saved(few[0], "GIF", optimize=False, interlace=1))
    at = part.index(b"\x2c\0\0\0\0" + struct.pack("<HH", WIDE, HIGH))
    part[6:10], part[at + 1 : at + 5] = struct.pack("<HH", 12, 10), struct.pack("<HH", 3, 2)
    screen = np.full((10, 12, 3), 255, np.uint8)
    screen[2 : 2 + HIGH, 3 : 3 + WIDE] = colours[GREY]
    yield Odd("a part of its screen.gif", bytes(part), screen)
    yield Odd(
        "pages.tif", saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]), PHOTO, browser=False
    )


def colours():
    """Colour spaces."""
    ink = np.kron(
        np.dstack([photo(4, 3), np.array([[0, 60, 120, 180]] * 3, np.uint8)]), np.ones((16, 16, 1), np.uint8)
    )
    shown = np.round((255 - ink[:, :, :3].astype(float)) * (255 - ink[:, :, 3:]) / 255).astype(np.uint8)
    yield Odd("CMYK.jpg", saved(Image.fromarray(ink, "CMYK"), "JPEG", **FINE), shown, 12)
    yield Odd("CMYK.tif", tiff(ink.tobytes(), 64, 48, 5, 8, 1, 4), shown, 2, browser=False)
    lightness = np.dstack([GREY * 5, 0 * GREY, 0 * GREY]).astype(np.uint8)  # a and b are 0: greys
    level = GREY * 5 / 255 * 100
    linear = np.where(level > 8, ((level + 16) / 116) ** 3, level / 903.3)
    coded = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear) * 255
    yield Odd(
        "LAB.tif", tiff(lightness.tobytes(), WIDE, HIGH, 8, 8, 1, 3), grey(np.round(coded)), 3, browser=False
    )
    yield Odd("YCbCr.jpg", saved(BLOCKS, "JPEG", **FINE), BLOCKS, 8)
    yield Odd("grey.jpg", saved(BLOCKS[:, :, 0], "JPEG", **FINE), grey(BLOCKS[:, :, 0]), 4)
    yield Odd(
        "white is 0.tif",
        tiff(GREY.astype(np.uint8).tobytes(), WIDE, HIGH, 0, 8),
        grey(255 - GREY),
        browser=False,
    )
    yield Odd(
        "1 bit.bmp",
        saved(Image.fromarray((GREY % 2 * 255).astype(np.uint8)).convert("1"), "BMP"),
        grey(GREY % 2 * 255),
    )
    yield Odd("progressive.jpg", saved(BLOCKS, "JPEG", **FINE, progressive=True), BLOCKS, 8)
    yield Odd("BLOCKS.JPG", saved(BLOCKS, "JPEG", **FINE), BLOCKS, 8)
    yield Odd("photo.avif", saved(BLOCKS, "AVIF", quality=95, subsampling="4:4:4"), BLOCKS, 12)
    yield Odd("photo.jfif", saved(BLOCKS, "JPEG", **FINE), BLOCKS, 8)
    yield Odd("photo.qoi", saved(PHOTO, "QOI"), PHOTO, browser=False)
    yield Odd("photo.tga", saved(PHOTO, "TGA"), PHOTO, browser=False)
    yield Odd("photo.bmp", saved(PHOTO, "BMP"), PHOTO)


def shapes_and_names():
    """Sizes at the edge, names at the edge, and the wrong extension."""
    yield Odd("1 x 1.png", saved(PHOTO[:1, :1]), PHOTO[:1, :1])
    yield Odd("very wide.png", saved(photo(20_000, 1)), photo(20_000, 1))
    yield Odd("very high.png", saved(photo(1, 3_000)), photo(1, 3_000))
    names = (
        "größe 写真.png",
        "two\nlines.png",
        "-rf.png",
        "a[x].png",
        "[bold]b.png",
        "%s%d.png",
        "*?.png",
        "'\".png",
        "$HOME.png",
    )
    for i, name in enumerate(names):
        shown = np.roll(PHOTO, i + 1, axis=1)
        yield Odd(name, saved(shown), shown)
    yield Odd(os.fsdecode(b"no text \xff.png"), saved(PHOTO[::-1]), PHOTO[::-1])
    yield Odd("a PNG.jpg", saved(PHOTO[::-1, ::-1]), PHOTO[::-1, ::-1])
    yield Odd("a GIF.png", saved(Image.fromarray(GREY.astype(np.uint8)), "GIF"), grey(GREY))


def broken():
    """What is no whole image, or would fill the memory."""
    whole = saved(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    yield Odd("cut.png", whole[: len(whole) // 2], "truncated")
    photo = saved(BLOCKS, "JPEG", **FINE)
    yield Odd("cut.jpg", photo[:-30], "truncated")
    yield Odd("cut.webp", saved(BLOCKS, "WEBP")[:40], "")
    yield Odd("cut.bmp", saved(PHOTO, "BMP")[:100], "truncated")
    yield Odd("head.jpg", photo[:10], "Truncated File Read")
    yield Odd("empty.png", b"", "no image")
    yield Odd("text.png", b"<html>404</html>", "no image")
    yield Odd("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n", "no image")
    yield Odd("huge.png", png(60_000, 60_000, 8, 2, []), "million pixels")
    small = saved(Image.fromarray(GREY.astype(np.uint8)), "GIF")
    yield Odd("huge.gif", small[:6] + struct.pack("<HH", 65535, 65535) + small[10:], "million pixels")
    yield Odd("huge.tif", tiff(b"", 60_000, 60_000, 1, 8), "million pixels")
    yield Odd(
        "huge.bmp",
        saved(PHOTO, "BMP")[:18] + struct.pack("<ii", 50_000, 50_000) + saved(PHOTO, "BMP")[26:],
        "million pixels",
    )


def odd_images():
    found = [
        odd for part in (turned, deep, clear, moving, colours, shapes_and_names, broken) for odd in part()
    ]
    assert len({odd.name for odd in found}) == len(found)
    return found
