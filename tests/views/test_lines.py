"""Lines of progress fit, whatever they are told."""

import itertools

import pytest

from recon_search.training.loop import Progress
from recon_search.views.lines import (
    describe_losses,
    duration,
    number,
    short,
    total_line,
    training_line,
)

TWO = {"left": 0.912, "right": 1.51}
FORTY = {f"Mouth_Slightly_Open_{place}": 0.1 + 0.03 * place for place in range(40)}
NAMES = ("joint, split, seed 1", "pcgrad, 顔の属性 [b]split[/b], same parameters, seed 12", "a\nb")


@pytest.mark.parametrize("losses", [{}, TWO, FORTY, {"a": float("nan"), "b": 1e30}])
def test_a_line_fits_into_every_terminal_and_lines_stand_under_each_other(losses):
    for width, left in itertools.product(range(40, 200), (None, 5.0, 1e6)):
        lines = [
            training_line(
                name, Progress(300, 1000, 1.2345, 1834.0, 3, 15, losses), left, width, name_width=28
            )
            for name in NAMES
        ]
        assert len({line.cell_len for line in lines}) == 1
        assert lines[0].cell_len <= width
        assert all("epoch  3/15  " in line.plain and "loss   1.23" in line.plain for line in lines)
        assert total_line(NAMES[1], 12, 27, "trainings", 0.44, left, width).cell_len <= width


def test_wider_terminals_show_more():
    progress = Progress(300, 1000, 1.2345, 1834.0, 3, 15, FORTY)
    shown = {
        width: training_line(NAMES[0], progress, 4000.0, width, name_width=26).plain
        for width in (80, 120, 160)
    }
    assert "1,834 img/s" in shown[80]
    assert "1 h 07 min" in shown[80]
    assert "highest Mouth" in shown[120]
    assert "lowest Mouth" in shown[160]
    assert "━" in shown[160]


def test_a_plain_terminal_gets_ascii():
    line = total_line("compare", 1, 2, "trainings", 0.5, 3.0, 80, plain=True)
    assert line.plain.isascii()
    assert "##" in line.plain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3590, "1 h 00 min"), (9e4, "1 d 1 h")],
)
def test_times_are_as_exact_as_anybody_needs(seconds, text):
    assert duration(seconds) == text


def test_of_many_losses_the_ends_are_shown_by_names_that_can_be_told_apart():
    assert describe_losses(FORTY, 100) == (
        "highest Mouth_Slightly_Open_39 1.27, lowest Mouth_Slightly_Open_0 0.100"
    )
    assert describe_losses(FORTY, 30).endswith("_39 1.27")
    assert describe_losses(FORTY, 10) == ""
    assert describe_losses({"alone": 1.0}, 100) == ""


def test_names_keep_both_ends():
    shown = short("pcgrad, random 25 layers, seed 12", 20)
    assert shown.startswith("pcgrad, rand")
    assert shown.endswith("eed 12")
    assert len(short("x" * 100, 20)) == 20


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.5, "0.500"), (12.345, "12.35"), (1e-7, "1.0e-07")]
)
def test_losses_have_three_digits(value, text):
    assert number(value) == text
