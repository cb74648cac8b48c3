"""Laws of conflict scores, and the file they live in."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recon_search import artefact
from recon_search.conflict.kept import FORMAT
from recon_search.conflict.rules import RULES, Reading, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sums import N_BELOW
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


@pytest.mark.parametrize(
    ("layers", "tasks", "message"),
    [
        ("conv1", TASKS, "`layers` must be a sequence of names, got 'conv1'"),
        (LAYERS, "seg", "`tasks` must be a sequence of names, got 'seg'"),
        (LAYERS, 3, "`tasks` must be a sequence of names, got 3"),
        (LAYERS, [], "`tasks` must name one at least, got none"),
        ([], TASKS, "`layers` must name one at least, got none"),
        (["a", "b", "a"], TASKS, "`layers` must name each once, 'a' is named twice"),
        (LAYERS, ["seg", "seg"], "`tasks` must name each once, 'seg' is named twice"),
        (LAYERS, ["seg", 1], "`tasks` must be a sequence of names, it holds a int"),
        ([torch.ones(2)], TASKS, "`layers` must be a sequence of names, it holds a Tensor"),
    ],
)
def test_what_are_no_names_is_one_clear_line(layers, tasks, message):
    with pytest.raises(RecipeError, match=message):
        ConflictScores(layers, tasks)


def test_names_may_be_any_collection():
    scores = ConflictScores({"one": [], "two": []}, (task for task in TASKS))
    assert (scores.layers, scores.tasks) == (("one", "two"), tuple(TASKS))


@pytest.mark.parametrize("at", [-0.1, 1.01, float("nan")])
def test_a_step_outside_the_probe_is_refused(at):
    scores = ConflictScores(LAYERS, TASKS)
    with pytest.raises(RecipeError, match=r"`at` must lie in \[0, 1\], got"):
        scores.update(torch.eye(3).expand(3, 3, 3), at=at)
    assert scores.steps == 0


@pytest.mark.parametrize("gramians", [torch.eye(3), torch.ones(3, 2, 2), [[1.0]]])
def test_gramians_of_another_shape_are_refused(gramians):
    with pytest.raises(RecipeError, match=r"must be of shape \(L, T, T\) = \(3, 3, 3\), got"):
        ConflictScores(LAYERS, TASKS).update(gramians)


def test_the_digest_is_of_what_was_measured_alone():
    scores = scored(random_gramians(0), seeds=[1])
    assert scores.digest == scored(random_gramians(0), seeds=[2], note="x").digest
    assert len(scores.digest) == 16
    others = [
        scored(random_gramians(1)),
        scored(random_gramians(0), layers=["one", "two", "four"]),
        scored(random_gramians(0), tasks=["a", "b", "d"]),
        scored(random_gramians(0)) + scored(random_gramians(0)),
    ]
    assert len({scores.digest, *(other.digest for other in others)}) == 5


def test_the_digest_survives_the_file(tmp_path):
    scores = scored(random_gramians(0))
    scores.save(tmp_path / "scores.safetensors")
    assert ConflictScores.load(tmp_path / "scores.safetensors").digest == scores.digest


SAVE = """
import sys, torch
from recon_search.conflict.scores import ConflictScores
names = sys.argv[2].split(",")
scores = ConflictScores(["one", "two"], ["a", "b"], {name: {name: 1, "z": 2} for name in names})
scores.update(torch.ones(2, 2, 2))
scores.save(sys.argv[1])
"""


def test_equal_scores_give_equal_bytes(tmp_path):
    """In each of several processes, and however the metadata came together."""
    for index, names in enumerate(("shift,place,series", "series,shift,place")):
        command = [sys.executable, "-c", SAVE, str(tmp_path / str(index)), names]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": str(index)})
    scores = ConflictScores.load(tmp_path / "0")
    for index in range(2, 8):
        scores.save(tmp_path / str(index))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def write_former(scores, path, n_pooled):
    """Write scores as the format before did; counts of windows are of all pairs together."""
    tensors = dict(scores.tensors)
    del tensors["pair_steps"]
    pooled = tensors["window_counts"].sum(-2)
    above = torch.full((*pooled.shape[:-1], N_BELOW), n_pooled, dtype=torch.int64)
    tensors["window_counts"] = torch.cat([pooled, above], -1)
    for name in ("counts", "window_steps"):
        tensors[name] = tensors[name].long()
    metadata = {"format": "recon-search/scores/2", "layers": scores.layers, "tasks": scores.tasks}
    metadata |= {"steps": scores.steps, "bins": [], "seeds": [1]}
    artefact.write_tensors(path, tensors, metadata)


@pytest.mark.parametrize("n_tasks", [2, 3])
def test_the_former_format_is_read(tmp_path, n_tasks):
    tasks = TASKS[:n_tasks]
    scores = scored(random_gramians(0, 40, n_tasks=n_tasks), tasks)
    write_former(scores, tmp_path / "old", n_pooled=3)
    found = ConflictScores.load(tmp_path / "old")
    assert found.metadata == {"seeds": [1]}
    assert found.pair_steps.tolist() == scores.pair_steps.tolist()
    found.save(tmp_path / "new")
    more = scored(random_gramians(1, 40, n_tasks=n_tasks), tasks)
    for old, new in (
        (found, scores),
        (ConflictScores.load(tmp_path / "new"), scores),
        (found + more, scores + more),
        (more + found, more + scores),
    ):
        assert old.share(-0.1) == new.share(-0.1)
        assert torch.equal(old.counts(-0.1), new.counts(-0.1))
        for rule in RULES.values():
            if not rule.needs_infos:
                for window in ((0.0, 1.0), (0.6, 1.0)):
                    reading = Reading(-0.1, window)
                    assert rank(old, rule.name, reading) == rank(new, rule.name, reading)


def test_the_former_format_goes_on(tmp_path):
    """As a checkpoint of a probe that an older version began."""
    gramians = random_gramians(0, 30)
    write_former(scored(gramians[:15]), tmp_path / "old", n_pooled=0)
    found = ConflictScores.load(tmp_path / "old")
    for step in gramians[15:]:
        found.update(step)
    whole = ConflictScores(LAYERS, TASKS)
    for step in gramians:
        whole.update(step)
    assert rank(found, "count", Reading(-0.2)) == rank(whole, "count", Reading(-0.2))


def test_a_file_without_its_names_is_refused(tmp_path):
    artefact.write_tensors(tmp_path / "x", {}, {"format": FORMAT})
    with pytest.raises(ArtefactError, match="must name layers and tasks"):
        ConflictScores.load(tmp_path / "x")


def test_a_file_without_its_tensors_is_refused(tmp_path):
    scores = scored(random_gramians(0))
    metadata = {"format": FORMAT, "layers": LAYERS, "tasks": TASKS}
    for missing in scores.tensors:
        tensors = {name: t for name, t in scores.tensors.items() if name != missing}
        artefact.write_tensors(tmp_path / "x", tensors, metadata)
        with pytest.raises(ArtefactError, match=r"must hold '.*' of shape .*Probe again"):
            ConflictScores.load(tmp_path / "x")


def test_counts_are_narrow_and_never_overflow():
    scores = scored(random_gramians(0))
    assert scores.tensors["counts"].dtype == scores.tensors["pair_steps"].dtype == torch.int32
    scores.tensors["counts"] += 2**30
    with pytest.raises(ArtefactError, match=r"stay below 2 \*\* 31, 'counts' would hold"):
        scores + scores


def test_many_pairs_do_not_enlarge_the_counts_of_windows():
    few, many = (ConflictScores(LAYERS, [f"t{task}" for task in range(n)]) for n in (8, 40))
    assert many.tensors["window_counts"].numel() < few.tensors["window_counts"].numel()
    assert many.tensors["counts"].shape == (3, 780, 200)
