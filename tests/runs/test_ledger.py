"""The ledger: what is read is what was written, or it is refused; ledgers of other versions load."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from ablate import load_run
from ablate.analysis import bounds
from ablate.cli.status import outcome
from ablate.config.trial_spec import TrialSpec
from ablate.engine.plan import proposer_of
from ablate.errors import BadInput
from ablate.reporting import figures
from ablate.reporting.findings import findings
from ablate.reporting.html_report import report
from ablate.runs import ledger, lines
from ablate.runs.record import FIELDS, blank_record

RESULTS = Path(__file__).parents[2] / "results"


def records(n=2):
    """Complete records, small, with text that is not ASCII."""
    for i in range(n):
        found = {
            "status": "complete",
            "accuracy": 0.1 * i,
            "loss": 1e-7,
            "size_bytes": 1000 + i,
            "error": 'a "quoted" \n ü J*',
        }
        yield blank_record(TrialSpec(seed=i), f"trial{i}") | found


SMALL = [{"schema": 1, "trial_id": f"a{i}", "status": "failed", "spec": {"seed": i}} for i in range(2)]


def test_a_line_holds_a_checksum_and_the_record_does_not(tmp_path):
    whole = list(records())
    for record in whole:
        ledger.append(tmp_path / "ledger.jsonl", record)
    assert ledger.read(tmp_path / "ledger.jsonl") == whole
    for line in (tmp_path / "ledger.jsonl").read_text().splitlines():
        assert re.fullmatch(r'\{"schema":1,.*,"crc32":"[0-9a-f]{8}"\}', line)
        assert lines.encode(json.loads(line)) == f"{line}\n".encode()  # a record that was read by other means


def every_changed_bit_is_refused(content):
    """Each of the bits in turn, the newlines' too."""
    first = content.index(b"\n")
    for i in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[i] ^= 1 << bit
            with pytest.raises(
                BadInput,
                match=rf"^ledger:{1 + (i > first)}: (not a record|written by a newer version).*"
                "(restore the ledger|put a line break)",
            ):
                ledger.parse(bytes(changed), Path("ledger"))


def test_every_changed_bit_is_refused():
    every_changed_bit_is_refused(b"".join(map(ledger.line, SMALL)))


@pytest.mark.slow
def test_every_changed_bit_of_whole_records_is_refused():
    every_changed_bit_is_refused(b"".join(map(ledger.line, records())))


def test_every_cut_leaves_the_records_before_it(tmp_path):
    content = b"".join(map(ledger.line, SMALL))
    whole, path = ledger.parse(content, Path("ledger")), tmp_path / "ledger.jsonl"
    for n in range(len(content)):
        lacks_newline = content[n : n + 1] == b"\n"  # and nothing else
        kept = whole[: content[:n].count(b"\n") + lacks_newline]
        last = 0 if lacks_newline else n - (content[:n].rfind(b"\n") + 1)
        tail = bytes(9 * (n % 2))  # zeros are what a power cut leaves of blocks that were not written
        assert ledger.parse(content[:n] + tail, path) == kept
        path.write_bytes(content[:n] + tail)
        assert ledger.recover(path) == last + len(tail)
        assert path.read_bytes() == b"".join(map(ledger.line, SMALL[: len(kept)]))


SPEC = '"schema":1,"trial_id":"a","spec":{}'
GOOD = f'{SPEC},"status":"failed"'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[]", "it is not an object"),
        ('"text"', "it is not an object"),
        ("[" * 100_000, "it is nested too deeply"),
        ("\0" * 40, "it is not JSON"),
        ("=" * 8, "it is not JSON"),
        (f"{{{GOOD}}}{{}}", "it is not JSON: Extra data"),
        (f'{{{GOOD},"status":"complete"}}', "it has a field twice"),
        (f'{{{GOOD},"accuracy":NaN}}', "it has NaN, which is no number"),
        (f'{{{GOOD},"later":[1e999]}}', "1e999 is more than a number holds"),
        (f'{{{GOOD},"accuracy":1e999}}', "1e999 is more than a number holds"),
        (f'{{{GOOD},"accuracy":"0.5"}}', "accuracy must be a finite number, but got '0.5'"),
        (f'{{{GOOD},"accuracy":true}}', "accuracy must be a finite number, but got True"),
        (f'{{{GOOD},"error":[1]}}', "error must be text, but got [1]"),
        (f'{{{GOOD},"seed":null}}', "seed must be a finite number, but got None"),
        (f'{{{GOOD},"curve":[3]}}', "curve must be a list of epochs, but got [3]"),
        (f'{{{GOOD},"curve":{{}}}}', "curve must be a list of epochs, but got {}"),
        (f'{{{SPEC},"status":"complete"}}', "accuracy must be a finite number, but got None"),
        (f'{{{SPEC},"status":"done"}}', "status must be one of complete, pruned, failed, but got 'done'"),
        (f"{{{SPEC}}}", "status must be text, but got None"),
        ("{}", "schema must be 1, but got None"),
        (f"{{{GOOD}}}".replace("1", "true", 1), "schema must be 1, but got True"),
        (f"{{{GOOD}}}".replace('"a"', "3"), "trial_id must be text, but got 3"),
        (f"{{{GOOD}}}".replace("{}", "[]"), "spec must be an object"),
        (f"{{{GOOD}}}".replace("{}", '{"recipe":3}'), "spec must be an object"),
        (
            f"{{{GOOD}}}".replace("{}", '{"layers":{"head":3}}'),
            "spec.layers.head must be an object, but got 3",
        ),
        (
            f"{{{GOOD}}}".replace("{}", '{"layers":{"head":{"weights":"one"}}}'),
            "spec: layers.head.weights: Input should be",
        ),
        (f"{{{GOOD}}}".replace("{}", '{"seed":"x"}'), "spec: seed: Input should be a valid integer"),
        (f'{{{GOOD},"crc32":"00000000"}}', "it was changed after it was written"),
        (f'{{{GOOD},"crc32":null}}', "it was changed after it was written"),
        (f'{{{GOOD},"star32":"00000000"}}', "it was changed after it was written"),  # crc was cut out
        (f"{{{GOOD}}}".replace('"a"', str([*range(99)])), "trial_id must be text, but got [0, 1, 2,"),
        (lines.encode(SMALL[0]).decode()[:-1].replace(",", ", "), "it was changed after it was written"),
    ],
)
def test_what_is_no_record(line, reason):
    with pytest.raises(BadInput) as told:
        ledger.parse(f"{line}\n".encode(), Path("ledger"))
    assert str(told.value).startswith(f"ledger:1: not a record: {reason}") and "\n" not in str(told.value)
    assert str(told.value).endswith("; restore the ledger from a copy or delete this line")


NEWER = "written by a newer version of ablate: schema 2, and this version reads 1; upgrade ablate"
AND_CHANGED = "; if that is no newer version's, it was changed: restore the ledger from a copy"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{{{GOOD}}}\n".replace("1", "2", 1), NEWER),
        (lines.encode(SMALL[0] | {"schema": 2}).decode(), NEWER),
        (lines.encode(SMALL[0]).decode().replace('"schema":1', '"schema":2'), NEWER + AND_CHANGED),
        (lines.encode(SMALL[0] | {"schema": 2}).decode()[:-4], NEWER),  # cut short
    ],
    ids=["without checksum", "as it was written", "with another checksum", "cut short"],
)
def test_a_ledger_of_a_newer_version_is_left_alone(line, said, tmp_path):
    (path := tmp_path / "ledger.jsonl").write_text(f"{ledger.line(SMALL[1]).decode()}{line}")
    before = path.read_bytes()
    for look in (ledger.read, ledger.recover):
        with pytest.raises(BadInput, match=rf"^{re.escape(f'{path}:2: {said}')}$"):
            look(path)
    assert path.read_bytes() == before


def test_what_this_version_cannot_read_is_not_to_be_deleted_where_it_is_as_it_was_written():
    later = [
        SMALL[0] | {"status": "paused"},
        SMALL[0] | {"accuracy": [0.5]},
        SMALL[0] | {"spec": {"layers": {"head": {"weights": "quaternary"}}}},
    ]
    for fields in later:
        with pytest.raises(
            BadInput, match=r"^ledger:1: this version cannot read a record .*; upgrade ablate$"
        ):
            ledger.parse(lines.encode(fields), Path("ledger"))


def test_what_another_version_added_is_sealed_with_the_rest():
    added = SMALL[0] | {"joules": 3.5, "spec": {"seed": 0, "power": {"cap": 1}}}
    (record,) = ledger.parse(lines.encode(added), Path("ledger"))
    assert record["joules"] == 3.5 and record["spec"]["power"] == {"cap": 1}
    assert ledger.parse(ledger.line(record), Path("ledger")) == [record]


BOM = b"\xef\xbb\xbf"


def test_what_editors_add_is_no_part_of_the_lines(tmp_path):
    content = b"".join(map(ledger.line, SMALL))
    one, other = (ledger.line(record) for record in SMALL)
    for edited in (
        BOM + content.replace(b"\n", b"\r\n"),
        b"\n" + one + b"\r\n \t\n" + other + b"\n\n",
        BOM + one + BOM + other,  # files put together
        content[:-1],
    ):
        assert ledger.parse(edited, Path("ledger")) == ledger.parse(content, Path("ledger"))
        (path := tmp_path / "ledger.jsonl").write_bytes(edited)
        assert ledger.recover(path) == 0
        ledger.append(path, third := SMALL[0] | {"trial_id": "a2"})
        assert [record["trial_id"] for record in ledger.read(path)] == ["a0", "a1", third["trial_id"]]


@pytest.mark.parametrize(
    ("packed", "what"),
    [
        (gzip.compress, "is compressed; unpack it with `gunzip`"),
        (lambda content: content.decode().encode("utf-16"), "is in UTF-16; save it in UTF-8"),
    ],
)
def test_a_ledger_in_another_form_is_called_that(packed, what, tmp_path):
    (path := tmp_path / "ledger.jsonl").write_bytes(content := packed(ledger.line(SMALL[0])))
    for look in (ledger.read, ledger.recover):
        with pytest.raises(BadInput, match=rf"must be lines of text, but {what}$"):
            look(path)
    path.rename(tmp_path / "ledger.jsonl.gz")
    path.touch()  # as resume does
    with pytest.raises(
        BadInput, match=r"holds no record, but ledger\.jsonl\.gz is beside it; unpack that first"
    ):
        ledger.recover(path)
    assert (tmp_path / "ledger.jsonl.gz").read_bytes() == content


def test_two_copies_of_a_ledger_are_one():
    """As cat puts them together, or a union merge."""
    content = b"".join(map(ledger.line, SMALL))
    once, bare = ledger.parse(content, Path("ledger")), json.dumps(SMALL[1]).encode() + b"\n"
    for merged in (content * 2, content + bare, bare + content, content[:-1] + b"\n" + content[:-1]):
        assert sorted(ledger.parse(merged, Path("ledger")), key=str) == sorted(once, key=str)


def test_two_records_of_a_trial_that_differ_are_refused():
    one, other = ({**SMALL[0], "status": "complete", "accuracy": value} for value in (0.25, 0.5))
    content = b"".join(map(ledger.line, [one, SMALL[1], other, other]))
    said = (
        "ledger: a trial must have one record, but a0 has two that differ, in lines 1 and 3 "
        "(accuracy: 0.25, 0.5), and 1 more lines are of this kind; delete the line that is not of this run"
    )
    with pytest.raises(BadInput, match=re.escape(said)):
        ledger.parse(content, Path("ledger"))


def test_conflict_markers_of_git_are_called_that():
    one, other = map(ledger.line, SMALL)
    content = b"<<<<<<< HEAD\n" + one + b"=======\n" + other + b">>>>>>> theirs\n"
    with pytest.raises(
        BadInput, match=r"^ledger:1: a conflict marker of git, '<<<<<<<', .* delete the markers$"
    ):
        ledger.parse(content, Path("ledger"))
    for rest in (content.partition(b"\n")[2], b">>>>>>> theirs\r\n"):
        with pytest.raises(BadInput, match="a conflict marker of git"):
            ledger.parse(rest, Path("ledger"))


@pytest.mark.parametrize("cut", [0, 9, -2])
def test_a_whole_record_behind_another_is_not_to_be_deleted(cut):
    """Files were put together whose first one lacks its newline."""
    first, second = map(ledger.line, SMALL)
    torn = first[: cut - 1]
    with pytest.raises(
        BadInput,
        match=rf"not a record: .*; put a line break before its character {len(torn) + 1}, where a whole",
    ):
        ledger.parse(torn + second, Path("ledger"))


def test_a_ledger_without_checksums_loads_as_it_is():
    old = RESULTS / "paper_micro" / "ledger.jsonl"
    for record, line in zip(ledger.read(old), old.read_text().splitlines(), strict=True):
        plain = json.loads(line)
        # Fields that came later, switched off.
        later = {
            "distort": False,
            "policy": None,
            "erase": 0.0,
            "mix": 0.0,
            "initialise": "checkpoint",
            "initialiser": "torch",
        }
        later |= {"initialise_blocks": None, "trained": "all", "teacher": None}
        later |= {"schedule": "cosine", "warmup_views": 2000, "decay": 0.2}
        added = {"full_epochs": 0, "compile": False, "attention_bits": None, **later}
        layers = {name: {"calibration": "mse"} | layer for name, layer in plain["spec"]["layers"].items()}
        assert record == plain | {
            "evaluation_batch": None,
            "calibration_error": None,
            "robust_accuracy": None,
            "peak_memory_bytes": None,
            "energy_mj": None,
            "spec": plain["spec"] | {"recipe": added | plain["spec"]["recipe"], "layers": layers},
        }


def rewritten(path, change):
    """A run's ledger with each record changed in place, as another version would have written it."""
    file = path / "ledger.jsonl"
    plain = [json.loads(line) for line in file.read_text().splitlines()]
    for record in plain:
        record.pop("crc32", None)
        change(record)
    file.write_text("".join(json.dumps(record) + "\n" for record in plain))


def begun_again(run):
    """What resume makes of the records before it goes on."""
    known = ledger.read(run.path / "ledger.jsonl")
    proposer_of(run.study, ["block0.attention", "block0.fc1", "block0.fc2", "head"], known, lambda spec: {})
    bounds.best_by_size(known, run.study.within)


def looked_at(path):
    """All that reads a run: status, findings, the page, the figures, and resume."""
    run = load_run(path)
    outcome(run, False)
    outcome(run, True)
    report(run)
    figures.draw(run, findings(run))
    begun_again(run)
    return run


LATER = [*(name for name in FIELDS if name not in ("schema", "trial_id", "spec", "status", "accuracy"))]


def without(*names):
    def change(record):
        for name in names:
            within, _, name = name.rpartition(".")
            (record[within] if within else record).pop(name)

    return change


@pytest.mark.slow
@pytest.mark.parametrize("missing", [*LATER, "spec.test", "spec.fraction", "spec.recipe"])
def test_a_ledger_that_lacks_a_field_is_looked_at(missing, finished, tmp_path):
    path = shutil.copytree(finished[0], tmp_path / "run")
    rewritten(path, without(missing))
    looked_at(path)


def test_a_ledger_of_the_oldest_version_loads(finished, tmp_path):
    path = shutil.copytree(finished[0], tmp_path / "run")
    before = load_run(path).records
    rewritten(path, without(*LATER))
    run = looked_at(path)
    for name in ("trial_id", "accuracy", "arm", "seed", "fraction", "epochs", "spec"):
        assert list(run.records[name]) == list(before[name])
    assert run.records[["size_bytes", "loss", "device", "error", "started_at"]].isna().all(axis=None)
    assert list(run.records["curve"]) == [[]] * len(run.records)


def test_what_a_newer_version_added_is_kept_and_no_trial_of_it_is_repeated(finished, tmp_path):
    path = shutil.copytree(finished[0], tmp_path / "run")

    def newer(record):
        record |= {"joules": 3.5, "spec": record["spec"] | {"power": {"cap": 1}}}
        record["spec"]["recipe"]["sharpness"] = 0.1

    rewritten(path, newer)
    run = load_run(path)
    assert set(run.records["joules"]) == {3.5} and {
        spec["recipe"]["sharpness"] for spec in run.records["spec"]
    } == {0.1}
    outcome(run, False)
    with pytest.raises(
        BadInput, match=r"trial \w+, maybe of a newer version of ablate: .*unknown key 'power'"
    ):
        begun_again(run)


def test_a_ledger_whose_newlines_are_others_is_not_cut_off(tmp_path):
    old = [
        {key: value for key, value in record.items() if key != lines.KEY} for record in records(3)
    ]  # without checksums
    content = "".join(json.dumps(record) + "\r" for record in old).encode()
    (path := tmp_path / "ledger.jsonl").write_bytes(content)
    with pytest.raises(BadInput, match="its newline was changed"):
        ledger.recover(path)
    assert path.read_bytes() == content
