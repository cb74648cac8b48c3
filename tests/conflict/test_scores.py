"""Laws of conflict scores, and the file they live in."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ArtefactError, RecipeError, TrainingError

TASKS = ["a", "b", "c"]
LAYERS = ["one", "two", "three"]


def random_gramians(seed, n_steps=5, n_layers=3, n_tasks=3):
    generator = torch.Generator().manual_seed(seed)
    jacobians = torch.randn(n_steps, n_layers, n_tasks, 4, generator=generator, dtype=torch.float64)
    return jacobians @ jacobians.mT


def scored(gramians, tasks=TASKS, layers=LAYERS, **metadata):
    scores = ConflictScores(layers, tasks, metadata)
    for index, step in enumerate(gramians):
        scores.update(step, at=index / len(gramians))
    return scores


@given(seed=st.integers(0, 1000), scales=st.tuples(*[st.floats(0.01, 100)] * 3))
def test_positive_scaling_changes_no_count(seed, scales):
    gramians = random_gramians(seed)
    scale = torch.tensor(scales, dtype=torch.float64)
    scaled = gramians * scale[:, None] * scale
    for threshold in (0.0, -0.3):
        assert torch.equal(scored(gramians).counts(threshold), scored(scaled).counts(threshold))


@given(seed=st.integers(0, 1000), order=st.permutations(range(3)))
def test_permuting_tasks_permutes_pairs(seed, order):
    gramians = random_gramians(seed)
    permuted = gramians[:, :, order][..., order]
    tasks = [TASKS[index] for index in order]
    plain, other = scored(gramians), scored(permuted, tasks)
    counts = dict(zip(map(frozenset, plain.pairs), plain.counts(-0.1).T.tolist(), strict=True))
    permuted_counts = dict(
        zip(map(frozenset, other.pairs), other.counts(-0.1).T.tolist(), strict=True)
    )
    assert counts == permuted_counts


@given(seed=st.integers(0, 1000), low=st.integers(-99, 0), high=st.integers(-99, 0))
def test_counts_are_monotone_in_the_threshold(seed, low, high):
    low, high = sorted((low, high))
    scores = scored(random_gramians(seed))
    assert (scores.counts(low / 100) <= scores.counts(high / 100)).all()


@given(seed=st.integers(0, 1000), cut=st.integers(0, 5))
def test_scores_of_parts_add_up(seed, cut):
    gramians = random_gramians(seed)
    total = scored(gramians[:cut], seeds=[1]) + scored(gramians[cut:], seeds=[2])
    assert torch.equal(total.counts(-0.2), scored(gramians).counts(-0.2))
    assert total.steps == 5
    assert total.metadata["seeds"] == [1, 2]


def test_a_cosine_equal_to_the_threshold_does_not_conflict():
    # cos = -0.6 exactly: g_i = (1, 0), g_j = (-0.6, 0.8)
    gramian = torch.tensor([[1.0, -0.6], [-0.6, 1.0]], dtype=torch.float64)[None]
    scores = ConflictScores(["layer"], ["a", "b"])
    scores.update(gramian)
    assert scores.counts(-0.6).item() == 0
    assert scores.counts(-0.59).item() == 1


def test_a_zero_gradient_conflicts_with_nobody():
    """In one layer, or in all of them where the task is said to be present."""
    zero, one = torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.ones(2, 2)
    scores = ConflictScores(["zero", "one"], ["a", "b"])
    scores.update(torch.stack([zero, one]))
    scores.update(torch.stack([zero, zero]), present=["a", "b"])
    assert scores.counts(0.0).tolist() == [[0], [0]]
    assert scores.steps == 2
    assert not scores.blocks("projection").any()


@pytest.mark.parametrize("threshold", [0.01, -1.0, -1.5, -0.055, float("nan"), float("-inf")])
def test_threshold_out_of_range(threshold):
    with pytest.raises(RecipeError, match=r"multiple of 0\.01, got"):
        scored(random_gramians(0)).counts(threshold)


def test_rank_orders_by_total_count_ties_in_graph_order():
    scores = ConflictScores(LAYERS, ["a", "b"])
    conflict = torch.tensor([[1.0, -0.5], [-0.5, 1.0]])
    agree = torch.eye(2)
    scores.update(torch.stack([agree, conflict, agree]))
    assert scores.rank() == ["two", "one", "three"]


def test_save_and_load(tmp_path):
    scores = scored(random_gramians(3), seeds=[7], backbone={"name": "resnet18"})
    scores.save(tmp_path / "scores.safetensors")
    loaded = ConflictScores.load(tmp_path / "scores.safetensors")
    assert (loaded.layers, loaded.tasks, loaded.metadata) == (
        scores.layers,
        scores.tasks,
        scores.metadata,
    )
    for name, tensor in scores.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_damaged_file_is_one_clear_error(tmp_path, damage):
    path = tmp_path / "scores.safetensors"
    scored(random_gramians(3)).save(path)
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "text": b"hello", "empty": b""}[damage]
    )
    with pytest.raises(ArtefactError, match="undamaged safetensors file"):
        ConflictScores.load(path)


def test_scores_of_different_layers_do_not_add():
    with pytest.raises(ArtefactError, match="equal layers and tasks"):
        scored(random_gramians(0)) + scored(random_gramians(0), layers=["x", "y", "z"])


def test_scores_of_another_backbone_do_not_add():
    first, second = (
        ConflictScores(["conv1"], ["a", "b"], {"backbone": {"digest": digest}})
        for digest in ("one", "two")
    )
    with pytest.raises(ArtefactError, match="only for one backbone"):
        first + second


def test_sums_of_every_probe_are_kept_apart(tmp_path):
    parts = [scored(random_gramians(seed)) for seed in range(3)]
    total = parts[0] + parts[1] + parts[2]
    assert total.n_probes == 3
    total.save(tmp_path / "scores.safetensors")
    loaded = ConflictScores.load(tmp_path / "scores.safetensors")
    for index, part in enumerate(parts):
        for name in ("projection", "window_counts", "window_steps"):
            assert torch.equal(loaded.tensors[name][index], part.tensors[name][0])
    assert torch.equal(loaded.counts(-0.1), sum(part.counts(-0.1) for part in parts))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_are_refused_and_leave_nothing(bad):
    scores = ConflictScores(["conv1", "bn1"], ["a", "b"])
    gramians = torch.eye(2).repeat(2, 1, 1)
    gramians[1, 0, 0] = bad
    with pytest.raises(TrainingError, match="those of layer 'bn1' are not, at measured step 1"):
        scores.update(gramians)
    assert scores.steps == 0
    assert not any(bool(tensor.any()) for tensor in scores.tensors.values())
