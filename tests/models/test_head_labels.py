"""The labels of a checkpoint and those of the data: what becomes of the head."""

import json

import pytest
from saved_models import numbered

from ablate.models.heads import few, match


@pytest.mark.parametrize(
    ("own", "labels", "fate"),
    [
        (["cat", "dog"], ["cat", "dog"], "kept"),
        (["dog", "cat"], ["cat", "dog"], "permuted"),
        (["emu", "dog", "cat"], ["cat", "dog"], "taken"),
        (["cat", "dog"], ["cat", "dog", "emu"], "new"),
        (["x", "y"], ["cat", "dog"], "new"),
        (["Polar_bear", "GREY-wolf "], ["grey wolf", "polar  bear"], "permuted"),
        (["größe", "gro\u0308ße b"], ["gr\u00f6ße b", "größe"], "permuted"),
        (["A", "a"], ["a", "A"], "permuted"),
        (["A", "B"], ["a", "b"], "new"),
        (["-1", "1"], ["-1", "1"], "kept"),
        (["1", "x"], ["-1", "x"], "new"),
        (["c", "c++"], ["c", "c"], "new"),
        (["m2", "m3"], ["m\u00b2", "m3"], "new"),
        (["a 1", "b"], ["a1", "b"], "new"),
        (["crane", "crane", "emu"], ["crane", "emu"], "new"),
        (["Cat", "cat", "emu"], ["CAT", "emu"], "new"),
        (["LABEL_0", "LABEL_1"], ["cat", "dog"], "kept"),
        (["0", "1"], ["cat", "dog"], "kept"),
        (["class 0", "class 1"], ["cat", "dog"], "kept"),
        (["1", "0"], ["cat", "dog"], "new"),
        ([str(i) for i in range(11)], sorted(str(i) for i in range(11)), "permuted"),
    ],
)
def test_labels(own, labels, fate):
    result = match(json.loads(json.dumps(numbered(own))), labels)
    assert (
        result.fate == fate
        and fate.replace("taken", "made").replace("permuted", "kept, its rows") in result.note
    )


@pytest.mark.parametrize(
    ("config", "fate", "note"),
    [
        ({}, "kept", "it has none"),
        ({"id2label": {"0": "cat", "2": "dog"}}, "new", "numbered from 0, but are 0, 2"),
        (
            {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 1, "dog": 0}},
            "new",
            "contradict each other in 'cat'",
        ),
        (
            {"id2label": {"0": "dog", "1": "cat"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}},
            "permuted",
            "dog, cat",
        ),
        (
            {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"dog": "0", "cat": "1"}},
            "permuted",
            "dog, cat",
        ),
        ({"id2label": {"1": "dog", "0": "cat"}, "label2id": {}}, "kept", "are the data's"),
        ({"id2label": ["cat", "dog"]}, "new", "must number"),
        ({"id2label": {"0": "cat", "1": "dog"}, "problem_type": "regression"}, "new", "for regression"),
    ],
)
def test_labels_that_are_missing_or_contradict_each_other(config, fate, note):
    result = match(config, ["cat", "dog"])
    assert result.fate == fate and note in result.note


def test_labels_are_shown_in_a_line():
    assert few(["a\nb", "\x1b[31m", "c\u202e"]) == "a\\nb, \\x1b[31m, c\\u202e"
    assert len(few(["x" * 999] * 9)) < 400
