"""What the fuzz targets share: inputs with one field or with bytes changed, all from a seed."""

import copy
import json
import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from random import Random
from typing import Any, Literal

Kind = Literal["field", "bytes", "scratch"]


class Wrong(Exception):
    """What was accepted is not what the oracle says."""


@dataclass(frozen=True)
class Input:
    """A file as a user might have it, and how it was made."""

    kind: Kind  # a valid file with one field changed, with bytes changed, or made from scratch
    what: str  # was done
    content: bytes
    of: Any = None  # which file it is


class Raw(str):
    """Text that stands in a file as it is, where a writer would refuse or rewrite the value."""


LONG = "x" * 10_000
NUMBERS: list[Any] = [
    *(
        0,
        1,
        -1,
        2,
        3,
        7,
        8,
        9,
        10,
        99,
        1000,
        10_000,
        10_001,
        100_000,
        100_001,
        10**6,
        10**6 + 1,
        10**12,
        10**12 + 1,
    ),
    *(
        2**31,
        2**32 - 1,
        2**32,
        2**53 + 1,
        2**63,
        2**64,
        10**30,
        10**400,
        Raw("0x" + "f" * 4000),
        Raw("9" * 5000),
    ),
    *(0.0, -0.0, 0.5, 1.0, 2.0, 3.5, 0.1, 1e-9, 5e-324, 2.2e-308, 1e17, 1e22, 1e300, 1.7976931348623157e308),
    *(math.inf, -math.inf, math.nan, 1 - 2**-53, 1 + 2**-52),
]
OTHERS: list[Any] = [
    True,
    False,
    "",
    "none",
    "None",
    "auto",
    "true",
    "yes",
    "3",
    "1e-3",
    "8.0",
    LONG,
    [],
    {},
    [[]],
    [{}],
    [1, 1.0, True],
]
TABLES: list[Any] = [
    {"low": 1, "high": 8},
    {"low": 1e-4, "high": 1e-2, "log": True},
    {"low": 0.25, "high": 1.0},
    {"low": 1, "high": 2**70},
    {"low": 5e-324, "high": 1e308, "log": True},
    {"low": 1, "high": 8, "step": 2},
    {"low": 8, "high": 1},
    {"low": -0.0, "high": 0.0},
    {"each": ["full", "binary"]},
    {"each": [1, 2, 8]},
    {"each": []},
]
TIMES: list[Any] = [date(2020, 2, 29), time(1, 2, 3), datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1)]


def near(text: str, random: Random) -> str:
    """A string that is nearly another."""
    i = random.randrange(len(text) + 1)
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    return random.choice(
        [
            *(
                text[:i] + text[i + 1 :],
                text[:i] + text[i : i + 1] * 2 + text[i + 1 :],
                text[:i][::-1] + text[i:],
            ),
            *(
                text.upper(),
                text.lower(),
                text.title(),
                text + " ",
                " " + text,
                text.replace("_", "-"),
                text.replace("a", "\u0430"),
            ),
            *(
                unicodedata.normalize("NFD", text + "é"),
                wide,
                text + "\0",
                text + "\n",
                "\x1b[31m" + text,
                text + "\u202e",
            ),
            *(
                "../" + text,
                "~nobody/" + text,
                "imagefolder:" + text,
                "imagefolder:~nobody/" + text,
                "./" + text,
                "/" + text,
            ),
            *(
                "[" + text,
                "[!]" + text,
                "**",
                "*",
                "?",
                "[a-" + text,
                text + ".toml",
                text + "😀",
                text * 100,
                LONG,
                "",
            ),
        ]
    )


def other(value: Any, random: Random, times: bool = False) -> Any:
    """Another value in a value's place."""
    if random.random() < 0.35:
        return random.choice(NUMBERS + OTHERS + TABLES + TIMES * times)
    if isinstance(value, bool):
        return random.choice(
            [not value, int(value), float(value), str(value).lower(), [value], [value, not value], "yes"]
        )
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return 1
        close = [
            math.nextafter(value, math.inf),
            math.nextafter(value, -math.inf),
            value + 1,
            value - 1,
            -value,
            value * 2,
        ]
        like = [
            value / 2,
            str(value),
            float(value),
            int(value),
            bool(value),
            [value],
            [value, value],
            [value, value + 1],
        ]
        return random.choice(
            [*close, *like, {"low": value, "high": value + 1}, {"low": value, "high": value, "log": True}]
        )
    if isinstance(value, str):
        return (
            near(value, random)
            if random.random() < 0.8
            else random.choice([[value], [value, value], {"each": [value]}, {}])
        )
    if isinstance(value, list | tuple):
        few = list(value)
        return random.choice(
            [
                [],
                few * 2,
                few[::-1],
                few[:1],
                few[:1] + few,
                few[0] if few else 0,
                [few],
                {"each": few},
                str(few),
            ]
        )
    return random.choice([[], [value], {}, "", 0, True, {"a": value}])


def changed(data: Any, random: Random, fields: list[str], times: bool = False) -> tuple[Any, str]:
    """Plain data with one field changed, dropped, renamed or added."""
    data = copy.deepcopy(data)
    places = [*_places(data)]
    holder, key = random.choice(places)
    tables = [data, *(holder[key] for holder, key in places if isinstance(holder[key], dict))]
    way = random.choices(("replace", "drop", "rename", "add"), (12, 2, 2, 5))[0]
    if way == "add":
        holder, key = random.choice(tables), random.choice(fields)
        holder[key] = random.choice(NUMBERS + OTHERS + TABLES + TIMES * times)
    elif way == "replace" or isinstance(holder, list):
        holder[key] = other(holder[key], random, times)
    elif way == "rename":
        value = holder.pop(key)
        holder[near(key, random)] = value
    else:
        del holder[key]
    return data, f"{way} {key}"


def _places(data: Any) -> Any:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield data, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mangled(content: bytes, random: Random, another: bytes) -> tuple[bytes, str]:
    """Bytes with some of them changed."""
    n = len(content)
    i, j = sorted((random.randrange(n + 1), random.randrange(n + 1)))
    way = random.choice(
        (
            "flip",
            "flips",
            "cut",
            "head",
            "drop",
            "double",
            "splice",
            "zeros",
            "bom",
            "encode",
            "ends",
            "insert",
        )
    )
    if way in ("flip", "flips") and n:
        flipped = bytearray(content)
        for _ in range(1 if way == "flip" else random.randint(2, 20)):
            flipped[random.randrange(n)] ^= 1 << random.randrange(8)
        return bytes(flipped), way
    if way == "encode":
        name = random.choice(("utf-16", "utf-16-le", "utf-32", "cp500", "utf-7"))
        return content.decode("latin-1").encode(name, errors="replace"), name
    junk = random.choice(
        (b"\0", b"\xff", b'"', b"[", b"{", b"\n", b"=", b"\xc3", b"# ", b"'''", "é".encode(), b"\x1a")
    )
    made = {
        "cut": content[:i],
        "head": content[i:],
        "drop": content[:i] + content[min(j, i + 40) :],
        "double": content[:j] + content[i:],
        "splice": content[:i] + another[random.randrange(len(another) + 1) :],
        "zeros": content[:i] + bytes(min(j - i, 4096)) + content[j:],
        "bom": b"\xef\xbb\xbf" + content,
        "ends": content.replace(b"\n", random.choice((b"\r\n", b"\r", b"\n\n", b"\x0b"))),
    }
    return made.get(way, content[:i] + junk * random.choice((1, 1, 3, 1000)) + content[i:]), way


def written(text: str) -> str:
    """A writer's output, with what is Raw as it is."""
    return re.sub(r'"@@(.*?)@@"', r"\1", text)


def marked(value: Any) -> Any:
    """Plain data in which what is Raw is marked for `written`."""
    if isinstance(value, dict):
        return {key: marked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [marked(item) for item in value]
    return f"@@{value}@@" if isinstance(value, Raw) else value


def as_json(value: Any) -> bytes:
    """JSON, with NaN and numbers of any length."""
    return written(json.dumps(marked(value), separators=(",", ":"))).encode(errors="surrogatepass")


def same(given: Any, held: Any) -> bool:
    """Whether a value that was read is the one given: no word or flag became a number; "none" is None."""
    if isinstance(given, dict):
        return isinstance(held, dict) and all(
            key in held and same(item, held[key]) for key, item in given.items()
        )
    if isinstance(given, list | tuple):
        return isinstance(held, list | tuple) and len(given) == len(held) and all(map(same, given, held))
    if isinstance(given, str) and given == "none":
        return held is None or held == "none"
    return type(given) in _like(held) and given == held


def _like(value: Any) -> tuple[type, ...]:
    return (int, float) if type(value) in (int, float) else (type(value),)
