"""Study and space files: load, write back, count points, propose. The oracle is tomllib and `fuzz_rules`."""

import json
import math
import tomllib
from pathlib import Path
from random import Random
from typing import Any

import tomli_w
from fuzz_files import extreme, scratch
from fuzz_rules import FIELDS, SPACE, STUDY, broken, choices_of, on
from fuzz_values import Input, Wrong, changed, mangled, marked, same, written

from ablate.config import builtin
from ablate.config.canonical import USUAL, asked
from ablate.config.search_space import load_space
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import TrialSpec
from ablate.engine.plan import proposer_of
from ablate.formatting import format_count
from ablate.models.layer_groups import match
from ablate.runs.record import blank_record
from ablate.runs.run import write_study
from ablate.search.searcher import Search

FEW = ["block0.attention", "block0.fc1", "block0.fc2", "head"]
MANY = [f"block{i}.{part}" for i in range(24) for part in ("attention", "fc1", "fc2")] + ["head"]
FOLDERS = {"study": "studies", "space": "search_spaces"}
NEEDED = {"study": ("question", "space"), "space": ("description", "layer")}
RULES = {"study": STUDY, "space": SPACE}
ASKED = 3  # proposals


class Target:
    """Of built-in files and of generated ones, changed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "mine.toml"
        root = builtin.ASSETS.parent
        files = {kind: sorted((root / below).glob("*.toml")) for kind, below in FOLDERS.items()}
        self.files = {kind: [path.read_bytes() for path in paths] for kind, paths in files.items()}
        self.data = {
            kind: [tomllib.loads(file.decode()) for file in some] for kind, some in self.files.items()
        }

    def make(self, number: int, random: Random) -> Input:
        kind = random.choice(("study", "study", "space"))
        of = kind, MANY if random.random() < 0.01 else FEW
        made = random.random()
        if made < 0.7:
            data = random.choice(self.data[kind]) if random.random() < 0.5 else scratch(kind, random, 0)
            data, what = changed(data, random, FIELDS, times=True)
            lines = written(tomli_w.dumps(marked(data))).splitlines(keepends=True)
            if random.random() < 0.05:  # a key twice
                lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
                what += ", a line doubled"
            return Input("field", what, "".join(lines).encode(errors="replace"), of)
        if made < 0.9:
            file, another = (
                random.choice(self.files[kind]),
                random.choice(self.files[random.choice(["study", "space"])]),
            )
            content, what = mangled(file, random, another)
            return Input("bytes", what, content, of)
        if made < 0.999:
            data = scratch(kind, random, random.choice((0, 0, 0.05, 0.3)))
            return Input(
                "scratch", "generated", written(tomli_w.dumps(marked(data))).encode(errors="replace"), of
            )
        what, content = extreme(kind, random)
        return Input("scratch", what, content, of)

    def check(self, given: Input) -> None:
        kind, groups = given.of
        self.path.write_bytes(given.content)
        spec: Any = (load_study if kind == "study" else load_space)(str(self.path))
        data = tomllib.loads(self.path.read_text(encoding="utf-8-sig"))
        if key := broken(data, RULES[kind], *NEEDED[kind]):
            raise Wrong(f"accepted {key.split('.')[0] if key in RULES[kind] else 'a key'} against its rule")
        held = spec.model_dump()
        for key, value in data.items():
            if not (same(value, held[key]) or _resolved(key, value, held[key])):
                raise Wrong(f"{key} is not as given")
        study = spec if kind == "study" else StudySpec(question="?", space=spec)
        self._written_back(study)
        space = held if kind == "space" else held["space"]
        chosen = dict.fromkeys(
            name
            for pattern in space["groups"]
            for name in match(pattern, dict.fromkeys(groups), "layer group")
        )
        for step in (*study.steps, *([study.reference] if study.reference else [])):
            for pattern in step.groups:
                match(pattern, chosen, "layer group")
        _proposes(study, _plain(space), [name for name in groups if name in chosen])

    def _written_back(self, study: StudySpec) -> None:
        write_study(self.path.parent, study)
        reread = load_study(str(self.path.parent / "study.toml"))
        if _typed(reread) != _typed(study):
            raise Wrong("study.toml does not read back equal")


def _typed(study: StudySpec) -> str:
    """A study in a form in which 1, 1.0 and true differ; a TOML file keeps no order."""
    return json.dumps(study.model_dump(), sort_keys=True)


def _resolved(key: str, given: Any, held: Any) -> bool:
    """What is documented to be read as something else."""
    if key == "space" and type(given) is str:
        return type(held) is dict
    if key in ("model", "data"):  # a path becomes absolute
        return type(held) is str and held.removeprefix("imagefolder:").startswith("/")
    if key == "design" and type(given) is str:
        return held == (() if given == "search" else (given,))
    return key == "objectives" and given == []  # the space's


def _plain(value: Any) -> Any:
    """A dumped space as a file has it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [*map(_plain, value)] if isinstance(value, tuple | list) else value


def _proposes(study: StudySpec, space: dict[str, Any], groups: list[str]) -> None:
    """Points counted; a few trials proposed and told; each within the space, with an id that JSON keeps."""
    proposer = proposer_of(
        study, groups, [], lambda spec: {"size_bytes": 1000, "latency_ms": 1.0, "bitops": 1000}
    )
    size = proposer.size
    format_count(None if size == math.inf else size)  # as a dry run prints it
    if isinstance(proposer, Search) and size != (expected := _size(space, groups)):
        raise Wrong(f"the space has {expected:g} points, and {size:g} were counted")
    seen = []
    for _ in range(ASKED):
        if (spec := proposer.ask()) is None:
            break
        _within(spec, study, space, groups)
        line = json.dumps(spec.model_dump(), allow_nan=False)
        reread = TrialSpec.model_validate(json.loads(line))
        if repr(reread) != repr(spec) or _id(reread) != _id(spec):
            raise Wrong("a trial is another one once it was written as JSON")
        seen.append(_id(spec) + str(spec.seed))
        found = {
            "accuracy": 0.5,
            "loss": 1.0,
            "size_bytes": 1000,
            "bitops": 1000,
            "latency_ms": 1.0,
            "images": 10,
            "train_seconds": 1.0,
        }
        proposer.tell(blank_record(spec, _id(spec)) | {"status": "complete", **found})
    if len(set(seen)) < len(seen):
        raise Wrong("a trial was proposed twice")


def _size(space: dict[str, Any], groups: list[str]) -> float:
    """Points of a space, counted by hand; a range of whole numbers is the only finite one."""
    axes: list[tuple[str, Any, int]] = [
        (key, axis, len(groups) if type(axis) is dict and "each" in axis else 1)
        for key, axis in space["layer"].items()
    ]
    axes += [(key, axis, 1) for key, axis in (space["recipe"] | {"fraction": space["fraction"]}).items()]
    counts = []
    for key, axis, times in axes:
        finite = (
            type(axis) is dict
            and "low" in axis
            and key
            in ("activation_bits", "epochs", "full_epochs", "image_views", "validate_every", "batch_size")
        )
        counts += [int(axis["high"]) - int(axis["low"]) + 1 if finite else choices_of(axis)] * times
    return math.inf if math.inf in counts else math.prod(map(int, counts))


def _within(spec: TrialSpec, study: StudySpec, space: dict[str, Any], groups: list[str]) -> None:
    """Raises Wrong where a trial is no point of the space; a field without effect has its usual value."""
    if study.design:
        return
    if not {*spec.layers} <= {*groups}:
        raise Wrong("a trial with layer groups beyond the space's")
    outer = study.recipe.outer_full or "outer_full" in space["recipe"]
    for group in groups:
        layer = spec.layers[group].model_dump() if group in spec.layers else {"weights": "full"}
        for key, axis in space["layer"].items():
            value = layer.get(key, USUAL.get(key))
            off = outer or key != "weights"
            if group not in spec.layers and key != "weights":
                continue
            if not on(value, axis) and not (off and value == USUAL.get(key, "full")):
                raise Wrong(f"a trial's {key} is not on its axis")
    for key, value in spec.recipe.model_dump().items():
        axis = space["recipe"].get(key, getattr(study.recipe, key))
        if (
            not on(value, "none" if axis is None else axis)
            and not (key in USUAL and value == USUAL[key])
            and not (key == "outer_full")
        ):
            raise Wrong(f"a trial's recipe.{key} is not on its axis")
    if not on(spec.fraction, space["fraction"]):
        raise Wrong("a trial's fraction is not on its axis")


def _id(spec: TrialSpec) -> str:
    return json.dumps(asked(spec, exclude={"seed"}), sort_keys=True)
