"""Reliability of rankings on probes without noise and with nothing else."""

import itertools
import math
from functools import reduce
from operator import add
from statistics import fmean

import pytest
import torch

from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.rules import Reading, projection
from recon_search.conflict.scores import ConflictScores

N_LAYERS = 20


def probe(cosines):
    """Scores of steps with given cosines, (steps, L)."""
    scores = ConflictScores([f"layer{index}" for index in range(N_LAYERS)], ["a", "b"])
    for step, row in enumerate(cosines):
        gramians = torch.eye(2).repeat(N_LAYERS, 1, 1).double()
        gramians[:, 0, 1] = gramians[:, 1, 0] = row
        scores.update(gramians, at=step / len(cosines))
    return scores


@pytest.mark.parametrize("rule", ["projection", "mass", "gain"])
def test_a_probe_without_noise_agrees_with_itself(rule):
    order = torch.linspace(-0.9, -0.1, N_LAYERS).double().expand(40, -1)
    found = measure_reliability(probe(order), rule, Reading(), k=5)
    assert found.steps == 40
    assert found.tau == pytest.approx(1.0)
    assert found.overlap == found.stability == 1.0
    assert found.chance == 0.25


@pytest.mark.parametrize("rule", ["count", "projection"])
def test_a_probe_of_noise_agrees_by_chance_alone(rule):
    taus, overlaps = [], []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        noise = 1.6 * torch.rand(60, N_LAYERS, generator=generator).double() - 0.8
        found = measure_reliability(probe(noise), rule, Reading(), k=5)
        taus.append(found.tau)
        overlaps.append(found.overlap)
    assert abs(sum(taus) / len(taus)) < 0.15
    assert sum(overlaps) / len(overlaps) == pytest.approx(0.25, abs=0.15)


@pytest.mark.parametrize("n_seeds", [2, 3, 6])
@pytest.mark.parametrize("between", [0.0, 0.3], ids=["seeds alike", "seeds differ"])
def test_stability_is_what_independent_probes_share(between, n_seeds):
    """Layers differ, steps are noisy, and seeds too: what is foretold must be what is found."""
    generator = torch.Generator().manual_seed(0)
    mean = -torch.linspace(0.2, 0.6, N_LAYERS)

    def pool():
        seeds = []
        for _ in range(n_seeds):
            own = mean + between * torch.randn(N_LAYERS, generator=generator) / 2
            noise = 0.4 * torch.randn(40, N_LAYERS, generator=generator)
            seeds.append(probe((own + noise).clamp(-0.95, 0.95).double()))
        return reduce(add, seeds)

    found, tops = [], []
    for _ in range(12):
        scores = pool()
        found.append(measure_reliability(scores, "projection", Reading(), k=5).stability)
        values = projection(scores, Reading())
        tops.append(set(values.argsort(descending=True)[:5].tolist()))
    shared = [len(a & b) / 5 for a, b in itertools.combinations(tops, 2)]
    assert fmean(found) == pytest.approx(fmean(shared), abs=0.12)


def test_layers_that_are_all_alike_promise_nothing():
    found = measure_reliability(probe(torch.zeros(40, N_LAYERS).double()), "mass", Reading(), k=5)
    assert math.isnan(found.stability)


def test_halves_see_the_whole_of_training():
    """Conflicts that drift from one layer to another must not look like disagreement."""
    drift = torch.zeros(40, N_LAYERS).double()
    drift[:20, 0], drift[20:, 1] = -0.9, -0.5
    assert measure_reliability(probe(drift), "projection", Reading(), k=2).overlap == 1.0


def test_the_window_limits_what_is_read():
    found = measure_reliability(
        probe(torch.zeros(40, N_LAYERS).double()), "projection", Reading(window=(0.6, 1.0)), k=2
    )
    assert found.steps == 16
