"""How well rules foretell benefits, beside how well anything could: laws and hand-made numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recon_search import artefact
from recon_search.errors import ArtefactError
from recon_search.runs.ablation import Ablated, Ablation, Foretold, find_ceiling, foretell
from recon_search.runs.paired import paired

BENEFITS = [[1.0, 1.2], [0.1, -0.1], [2.0, 2.5], [-1.0, -0.8]]


def make_ablation():
    joint = [-3.0, -3.5]
    layers = [
        Ablated(
            f"l{i}", [a + b for a, b in zip(own, joint, strict=True)], paired(own, [0, 0]), 1, 2
        )
        for i, own in enumerate(BENEFITS)
    ]
    rules = [
        Foretold("count", [4.0, 3.0, 2.0, 1.0], [1, 2, 3, 4], *foretell([4, 3, 2, 1], [0] * 4))
    ]
    ceiling = find_ceiling(BENEFITS)
    return Ablation([0, 1], "joint", joint, layers, rules, ceiling, 0.0, (0.6, 1.0), 9)


def test_an_ablation_is_read_as_it_was_written(tmp_path):
    make_ablation().save(tmp_path / "a.json")
    assert Ablation.load(tmp_path / "a.json") == make_ablation()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"joint": [1.0]}, "has 1 in joint"),
        ({"seeds": [0, 1, 2]}, "has 2 in joint"),
        ({"layers": []}, "has 4 in rule 'count'"),
        ({"ceiling": {"halves": 1.0}}, "is missing"),
        ({"rules": 3}, "breaks a rule"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, change, said):
    make_ablation().save(tmp_path / "a.json")
    values = artefact.read_object(tmp_path / "a.json", "ablation")
    artefact.write_json(tmp_path / "a.json", {**values, **change})
    with pytest.raises(ArtefactError, match=said):
        Ablation.load(tmp_path / "a.json")


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=8, unique=True))
def test_only_the_order_counts(values):
    benefits = [float(value % 7) for value in values]
    stretched = [math.exp(value) for value in values]
    assert foretell(values, benefits) == pytest.approx(foretell(stretched, benefits))
    assert foretell(values, stretched)[0] == pytest.approx(1)
    assert foretell(values, [-value for value in values])[0] == pytest.approx(-1)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, 2.0]])
def test_nothing_is_foretold_where_there_is_no_order(values):
    assert foretell(values, values) == (None, None)


def test_the_ceiling_of_benefits_without_noise_is_one():
    found = find_ceiling([[1.0] * 4, [2.0] * 4, [5.0] * 4])
    assert (found.halves, found.reliability, found.ceiling) == pytest.approx((1, 1, 1))


def test_what_a_seed_does_to_all_layers_does_not_count():
    shifted = [[a + 10, b - 20] for a, b in BENEFITS]
    assert find_ceiling(shifted) == find_ceiling(BENEFITS)


@pytest.mark.parametrize(
    "benefits", [[], [[1.0], [2.0], [3.0]], [[1.0, 2.0]] * 2, [[1.0, 2.0]] * 5]
)
def test_there_is_no_ceiling_of_too_little(benefits):
    assert find_ceiling(benefits) is None


def test_a_ceiling_foretells_what_the_truth_correlates_by():
    """Of normal benefits and noise alike: seeds of reliability 1/2, four of them 4/5."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, 1, generator=generator)
    measured = truth + torch.randn(4000, 4, generator=generator)
    found = find_ceiling(measured.tolist())
    assert found.reliability == pytest.approx(4 / 5, abs=0.03)
    correlation, _ = foretell(truth[:, 0].tolist(), measured.mean(1).tolist())
    assert found.ceiling == pytest.approx(correlation, abs=0.02)


def test_the_ceiling_of_mere_noise_is_low():
    noise = torch.randn(2000, 6, generator=torch.Generator().manual_seed(1))
    assert find_ceiling(noise.tolist()).ceiling < 0.25
