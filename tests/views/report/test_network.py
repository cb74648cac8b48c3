"""The split network on the page: what the figure says, in colours that the page knows."""

import re

import pytest

from recon_search.graph.anatomy import dissect
from recon_search.graph.split import Split
from recon_search.views.picture import picture
from recon_search.views.report.network import network_plot
from tests import toys
from tests.views.report.parsing import parse

TASKS = ("p", "q", "a & b")
GROUPED = Split(TASKS, {"body": (("p", "q"), ("a & b",))})


def split_of(n):
    tasks = tuple(f"attribute_number_{i}" for i in range(n))
    return Split.private(["body"], tasks)


@pytest.fixture(params=[GROUPED, split_of(2), split_of(40)], ids=["grouped", "two", "forty"])
def anatomy(request):
    return dissect(toys.Residual(), request.param, title="toy")


def test_it_says_what_the_figure_says(anatomy):
    drawn = [text.get_text() for text in picture(anatomy).axes[0].texts]
    figure = [line for text in drawn for line in text.split("\n")]
    assert [text.text for text in parse(network_plot(anatomy)).all("text")] == figure


def test_a_reader_of_screens_hears_which_layers_are_private(anatomy):
    (svg,) = parse(network_plot(anatomy)).all("svg")
    assert svg.attributes["role"] == "img"
    assert svg.attributes["aria-label"].startswith(
        "1 of 3 layers of toy have private copies: body."
    )


def test_everything_lies_within(anatomy):
    (svg,) = parse(network_plot(anatomy)).all("svg")
    _, _, width, height = map(float, svg.attributes["viewbox"].split())
    for box in svg.all("rect"):
        x, y, across, down = (float(box.attributes[k]) for k in ("x", "y", "width", "height"))
        assert 0 <= x <= x + across <= width
        assert 0 <= y <= y + down <= height
    for text in svg.all("text"):
        assert 0 <= float(text.attributes["y"]) <= height


def test_a_group_has_the_mixture_of_its_tasks_colours():
    page = network_plot(dissect(toys.Residual(), GROUPED))
    assert "color-mix(in srgb, var(--s0), var(--s1) 50%)" in page
    assert not re.search("#[0-9a-f]{3}", page), "a colour that the dark page does not know"
