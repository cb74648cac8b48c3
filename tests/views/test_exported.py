"""What is said of the network that a run hands over."""

from dataclasses import replace
from pathlib import Path

import pytest

from recon_search.runs.comparison import Best
from recon_search.views.exported import describe_export
from tests.views.report.test_answer import comparison


def made(split, **rows):
    return replace(comparison(split, **rows), best=Best("split", 2, 1.5, "trainings/b"))


def test_the_network_and_what_chose_it_are_named():
    assert describe_export(made([1.0, 0.0, 2.0]), Path("run")) == [
        'Exported: "split", seed 2, the split network with the highest delta_m on validation data '
        "(+1.50 %)."
    ]


@pytest.mark.parametrize(
    ("rows", "name", "words"),
    [
        (
            {"joint": (-1.0, -2.0, -3.0)},
            "joint",
            "-2.00 and -9.00 %, means over seeds, which chance",
        ),
        (
            {"control": ([4.0, 4.0, 4.0], 1.0, 0.01)},
            "random",
            "+4.00 and -9.00 %, means over seeds).",
        ),
    ],
)
def test_a_row_that_ranks_above_is_named_with_the_command_that_hands_it_over(rows, name, words):
    found = replace(made([-9.0, -9.0, -9.0], **rows), trainings={name: ["trainings/a"]})
    _, why = describe_export(found, Path("my run"))
    assert why.startswith(f'On test data "{name}" ranks above it ({words}')
    assert "Test data chooses nothing" in why
    assert why.endswith("recon-search export 'my run/trainings/a/model' --format safetensors")


def test_where_trainings_were_not_kept_there_is_no_command():
    found = made([-9.0, -9.0, -9.0])
    assert describe_export(found, Path("run"))[1].endswith("a split network.")
