"""Figures draw what things are called, whatever that is."""

import io
import warnings

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from recon_search.conflict.scores import ConflictScores
from recon_search.graph.naming import name_of
from recon_search.views.plots import draw, heat_map

NAMES = ["$_$", "$x$", "\\frac{", "a\nb", "\t", "层", "🙂", "^{", "%s", "\x07"]


def heat_map_of(layers):
    scores = ConflictScores(layers, ["left", "right"])
    scores.update(torch.eye(2).expand(len(layers), 2, 2))
    return heat_map(scores)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_names_are_drawn_as_they_are(kind):
    figure, target = heat_map_of(NAMES), io.BytesIO()
    draw(figure, target, kind, dpi=60)
    drawn = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert drawn == ["$_$", "$x$", "\\frac{", "a b", " ", "层", "🙂", "^{", "%s", " "]
    assert not any(text.get_parse_math() for text in figure.findobj(Text))
    assert len(target.getvalue()) > 1000


def test_other_warnings_are_not_hidden(monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: warnings.warn("odd", stacklevel=1))
    with pytest.warns(UserWarning, match="odd"):
        draw(Figure(), io.BytesIO(), "png", dpi=60)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_groups_are_one_line(name):
    named = name_of((name, "b"))
    assert named.isprintable()
    assert named.endswith(" + b")
    assert len(named) == len(name) + 4
