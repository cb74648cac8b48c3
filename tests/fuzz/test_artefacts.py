"""Files that are damaged, changed or somebody else's, by the hundred."""

import resource

import pytest

from tests.fuzz.cases import run_case
from tests.fuzz.subjects import make_subjects

MOST_MEMORY = 400_000
"""Kilobytes by which all cases of a kind may raise the largest size of the process."""

MANY = 9
"""Times as many cases by the marker as by default."""

NAMES = (
    "split", "scores", "result", "comparison", "ablation", "recipe", "own recipe", "identity",
    "summary", "cache", "checkpoint", "config", "model", "model split", "weights", "origin",
    "examples", "counts", "timm config", "pth", "database",
)  # fmt: skip


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    return make_subjects(tmp_path_factory.mktemp("fuzz"))


def check(name, subject, numbers):
    expected = subject.read()
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults = [fault for number in numbers if (fault := run_case(name, subject, number, expected))]
    assert not faults, "\n".join(
        [f"{len(faults)} cases; repeat one with: python -m tests.fuzz NAME NUMBER", *faults[:20]]
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size < MOST_MEMORY
    assert subject.read() == expected, "the file is back"


def test_every_kind_is_tried(subjects):
    assert tuple(subjects) == NAMES
    assert sum(subject.n for subject in subjects.values()) >= 500


@pytest.mark.parametrize("name", NAMES)
def test_a_spoilt_file_is_one_line(subjects, name):
    check(name, subjects[name], range(subjects[name].n))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_spoilt_files_are_one_line_each(subjects, name):
    n = subjects[name].n
    check(name, subjects[name], range(n, (1 + MANY) * n))
