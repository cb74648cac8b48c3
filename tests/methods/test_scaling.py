"""A scaled loss changes nothing that a method sees or leaves: powers of two change no digit."""

import pytest
import torch

import recon_search as rs
from recon_search.methods.registry import METHODS
from recon_search.methods.scaling import Scaling
from tests.methods.small import gradients_of, losses_of, make_small

NEEDS_THREE = ("krum", "trimmed-mean")


def learn(method, factor, steps=3):
    """Gradients and Gramians of a few steps, of several batches each."""
    model = make_small(method not in NEEDS_THREE)
    surgeon = rs.create_surgeon(model, method)
    optimizer = torch.optim.SGD([*model.parameters(), *surgeon.parameters()], lr=0.01)
    found = []
    for seed in range(steps):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        surgeon.scaling.factor = None if factor is None else torch.tensor(float(factor))
        measure = seed % 2 == 1
        for batch in range(2):
            losses = losses_of(model, 2 * seed + batch)
            surgeon.accumulate(losses, share=0.5, measure=measure)
        gramians = surgeon.combine(measure=measure)
        found.append(gradients_of(model))
        found += [{"gramians": gramians}] if measure else []
        optimizer.step()
        surgeon.step(lambda model=model, seed=seed: (losses_of(model, seed), None))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_same_bits_at_any_scale(method):
    expected = learn(method, None)
    for factor in (2.0**16, 2.0**-8):
        for mine, theirs in zip(learn(method, factor), expected, strict=True):
            assert mine.keys() == theirs.keys()
            for name, tensor in theirs.items():
                assert torch.equal(mine[name], tensor), (name, factor)


@pytest.mark.parametrize("method", ["joint", "pcgrad", "graddrop", "rotograd", "uw"])
def test_an_overflow_leaves_gradients_that_are_not_finite(method):
    model = make_small()
    surgeon = rs.create_surgeon(model, method)
    surgeon.scaling.factor = torch.tensor(torch.inf)
    surgeon.accumulate(losses_of(model))
    surgeon.combine()
    found = gradients_of(model)
    assert any(not bool(gradient.isfinite().all()) for gradient in found.values())


def test_half_precision_is_brought_down_in_single():
    scaling = Scaling()
    scaling.factor = torch.tensor(2.0**16)
    small = torch.full((3,), 2.0**-10, dtype=torch.float16)
    (found,) = scaling.down([small])
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.full((3,), 2.0**-26))
    assert torch.equal(small, torch.full((3,), 2.0**-10, dtype=torch.float16)), "left as it was"
