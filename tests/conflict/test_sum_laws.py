"""Sums that no probe can give are refused, and those of every probe are read."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_search import artefact
from recon_search.conflict.kept import FORMAT
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sum_laws import check_laws
from recon_search.errors import ArtefactError

LAYERS, TASKS = ["one", "two"], ["a", "b", "c"]


def measured(seed, n_steps=12, scale=1.0, n_tasks=3, absent=0.3):
    """Scores of random gradients, of tasks of which some are absent."""
    generator = torch.Generator().manual_seed(seed)
    scores = ConflictScores(LAYERS, [f"t{task}" for task in range(n_tasks)])
    for step in range(n_steps):
        jacobians = scale * torch.randn(2, n_tasks, 4, generator=generator)
        here = torch.rand(n_tasks, generator=generator) >= absent
        scores.update(jacobians @ jacobians.mT, at=step / n_steps, present=here)
    return scores


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(0, 25),
    st.sampled_from([1e-20, 1.0, 1e6]),
    st.sampled_from([2, 3, 9]),
    st.sampled_from([0.0, 0.5]),
)
def test_every_probe_obeys(seed, n_steps, scale, n_tasks, absent):
    scores = measured(seed, n_steps, scale, n_tasks, absent)
    check_laws(scores.tensors, "here")
    check_laws((scores + measured(seed + 1, 7, n_tasks=n_tasks)).tensors, "here")


def spoil(name, change):
    def changed(sums):
        sums[name] = change(sums[name].clone())
        return sums

    return changed


def first(value):
    def put(tensor):
        tensor.view(-1)[0] = value
        return tensor

    return put


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("inner", first(float("nan"))), "numbers that are finite"),
        (spoil("mass", first(float("inf"))), "numbers that are finite"),
        (spoil("mass", first(-1.0)), "not negative"),
        (spoil("counts", first(-1)), "not negative"),
        (spoil("counts", lambda t: t + 1), "a count for each step"),
        (spoil("counts", lambda t: t.flip(-1)), "equal counts in its windows"),
        (spoil("window_counts", lambda t: t + 1), "equal counts in its windows"),
        (spoil("window_steps", torch.zeros_like), "no pair in more steps"),
        (spoil("projection", lambda t: t + 50), "sums that so many steps can have"),
        (spoil("inner", lambda t: t - 0.5 * t.abs().max() - 0.1), "so many steps|below what"),
        (spoil("counts", lambda t: t.float()), "'counts' as int32, found float32"),
        (spoil("inner", lambda t: t.float()), "'inner' as float64, found float32"),
        (spoil("pair_steps", lambda t: t.bool()), "'pair_steps' as int32, found bool"),
    ],
)
def test_what_no_probe_gives_is_refused(tmp_path, change, message):
    scores = measured(0, absent=0.0)
    metadata = {"format": FORMAT, "layers": scores.layers, "tasks": scores.tasks}
    artefact.write_tensors(tmp_path / "s", change(dict(scores.tensors)), metadata)
    with pytest.raises(ArtefactError, match=message) as caught:
        ConflictScores.load(tmp_path / "s")
    assert str(tmp_path / "s") in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"seeds": []}, "`seeds` breaks a rule"),
        ({"seeds": ["0"]}, r"`seeds.0` breaks a rule.* got '0'"),
        ({"layer_infos": [{"name": "one"}]}, "describe each of its 2 layers"),
        ({"layer_infos": [{}, {}]}, r"`layer_infos.0.name` is missing \(and 1 more\)"),
        ({"backbone": "resnet18"}, "`backbone` breaks a rule"),
        ({"layers": "one"}, "`layers` breaks a rule"),
    ],
)
def test_metadata_of_other_types_are_refused(tmp_path, metadata, message):
    scores = measured(0)
    own = {"format": FORMAT, "layers": scores.layers, "tasks": scores.tasks, **metadata}
    artefact.write_tensors(tmp_path / "s", scores.tensors, own)
    with pytest.raises(ArtefactError, match=message):
        ConflictScores.load(tmp_path / "s")
