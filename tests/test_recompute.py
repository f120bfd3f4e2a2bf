"""The numbers of README and docs are those of the committed results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))
import recompute  # noqa: E402
from recompute_sentences import sentences  # noqa: E402

SENTENCES = list(sentences())
# A number with a unit of a result, or an interval.
NUMBER = re.compile(r"[-+]?\d[\d.,]* (?:%|points?|ms|MiB)(?!\w)|\([-+]?\d[\d.]* to [-+]?\d[\d.]*\)")
CITED = {  # not ours, and where README says whose they are
    "98.6 %": "Liu & Fuh",
    "40.5 %": "paper",
    "36.3 %": "vit-micro-200ep",  # its card
    "24.0 %": "vit-micro-200ep",
}


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda s: f"{s.document}: {s.words[:60]}")
def test_a_number_in_the_documents_is_that_of_its_result(sentence):
    assert sentence.stands, f"{sentence.document} must say: {sentence.words}, and link {sentence.result}"


def test_each_result_that_is_linked_is_there():
    for result in {sentence.result for sentence in SENTENCES}:
        assert (BENCHMARKS.parent / result).exists()


def test_no_number_of_the_readme_is_left_out():
    words = [sentence.words for sentence in SENTENCES if sentence.document == "README.md"]
    for text in recompute.paragraphs("README.md"):
        known = [span for each in words for span in spans(each, text)]
        for found in NUMBER.finditer(text):
            cited = CITED.get(found[0], "no source")
            assert cited in text or any(a <= found.start() and found.end() <= b for a, b in known), (
                found[0],
                text,
            )


def spans(words, text):
    return [match.span() for match in re.finditer(re.escape(words), text)]


def test_it_imports_nothing_of_the_package():
    ours = "('ablate', 'analysis', 'pandas')"
    code = (
        f"import sys, recompute_sentences as r; print([m for m in sys.modules if m.split('.')[0] in {ours}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_wrong_digit_is_found():
    right = next(sentence for sentence in SENTENCES if "43.1" in sentence.words)
    wrong = recompute.Sentence(right.document, right.result, right.words.replace("43.1", "43.2"))
    elsewhere = recompute.Sentence(right.document, "results/no_such_run", right.words)
    assert right.stands and not wrong.stands and not elsewhere.stands
