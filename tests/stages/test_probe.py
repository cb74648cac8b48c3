"""Probes that stop by themselves, and probes that are continued."""

from dataclasses import replace
from functools import reduce
from operator import add

import pytest
import torch

from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.recipe import load_recipe
from recon_search.runs import pool
from recon_search.runs.listener import Listener
from recon_search.runs.pool import train_all
from recon_search.runs.run import Run
from recon_search.runs.trainer import train, train_told
from recon_search.stages.probe import continue_probe, probe, probe_training
from recon_search.stages.split import choose_layers, reading_of
from tests.stages.recipes import TINY

LIMIT = 4


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder that holds the recipe and, in `trainings`, every probe seed; each seed's scores."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "tiny.toml").write_text(TINY)
    recipe = load_recipe(folder / "tiny.toml")
    this = Run(recipe, folder, workers=1)
    results = train_all([probe_training(this, seed) for seed in range(LIMIT)], this, "")
    return folder, [
        ConflictScores.load(result.directory / "scores.safetensors") for result in results
    ]


@pytest.fixture
def trained(monkeypatch):
    """The probe seeds that are asked for, in this process and in this order."""
    seeds = []

    def record(training, *arguments):
        seeds.append(training.seed)
        return train_told(training, *arguments)

    monkeypatch.setattr(pool, "train_told", record)
    return seeds


@pytest.fixture
def run(measured):
    """Run a probe on the trainings at hand; returns scores and what the listener hears."""
    folder, _ = measured

    def call(action, *overrides, workers=1, **options):
        recipe = load_recipe(folder / "tiny.toml", overrides)
        said = []
        listener = Listener()
        listener.say = said.append
        scores = action(Run(recipe, folder, workers=workers, listener=listener), **options)
        return scores, "\n".join(said)

    yield call
    (folder / "scores.safetensors").unlink(missing_ok=True)


def same(first, second):
    return first.metadata["seeds"] == second.metadata["seeds"] and all(
        torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items()
    )


def stabilities(measured, *overrides):
    """The stability after the first seed, the first two, and so on."""
    folder, parts = measured
    recipe = load_recipe(folder / "tiny.toml", overrides)
    found = []
    for n in range(1, LIMIT + 1):
        scores = reduce(add, parts[:n])
        k = len(choose_layers(recipe, scores))
        reading = reading_of(recipe)
        found.append(measure_reliability(scores, recipe.split.rule, reading, k).stability)
    return found


SPLITS = [
    ["split.rule=projection"],
    ["split.rule=count", "split.k=12"],
    ["split={max_params='1.3x', rule='mass'}"],
]


@pytest.mark.parametrize("split", SPLITS, ids=["projection", "count", "budget"])
@pytest.mark.parametrize("place", range(1, LIMIT))
def test_a_probe_takes_the_fewest_seeds_that_are_stable(measured, run, split, place):
    """Whatever stability some number of seeds has, asking for it stops at the first such number.

    But not at one seed, which cannot tell.
    """
    found = stabilities(measured, *split)
    n_seeds = next(n for n in range(2, LIMIT + 1) if found[n - 1] >= found[place])
    limits = ["probe.seeds=4", f"probe.confidence={found[place]!r}"]
    scores, said = run(probe, *split, *limits)
    assert same(scores, reduce(add, measured[1][:n_seeds]))
    assert f"after {n_seeds} seed" in said
    assert "Warning" not in said


@pytest.mark.parametrize(("workers", "asked"), [(1, [0, 1]), (3, [0, 1, 2]), (8, [0, 1, 2, 3])])
def test_the_seeds_used_do_not_depend_on_the_workers(measured, monkeypatch, run, workers, asked):
    """Workers train more seeds at once; those that were not needed are left out."""
    seeds = []

    def serially(trainings, run, title):
        seeds.extend(training.seed for training in trainings)
        return train_all(trainings, replace(run, workers=1), title)

    monkeypatch.setattr("recon_search.stages.probe.train_all", serially)
    least = stabilities(measured)[1]
    scores, _ = run(probe, "probe.seeds=4", f"probe.confidence={least!r}", workers=workers)
    assert seeds == asked
    assert same(scores, reduce(add, measured[1][:2]))


def test_a_probe_that_never_is_stable_says_so(measured, run):
    split = SPLITS[1]
    assert max(stabilities(measured, *split)) < 1
    scores, said = run(probe, *split, "probe.seeds=3", "probe.confidence=1.0")
    assert scores.metadata["seeds"] == [0, 1, 2]
    assert said.splitlines()[-1].startswith("Warning: the ranking never was stable")


def test_without_a_confidence_every_seed_is_used(measured, run):
    scores, said = run(probe, "probe.seeds=3")
    assert same(scores, reduce(add, measured[1][:3]))
    assert "table" not in said.lower()  # neither stable nor unstable


@pytest.mark.parametrize("confidence", [[], ["probe.seeds=2", "probe.confidence=0.5"]])
def test_a_probe_that_would_measure_nothing_is_refused_before_it_begins(run, trained, confidence):
    """The first step alone is measured, and the window begins after it."""
    settings = ["probe.every=16", "probe.window=[0.6, 1.0]", *confidence]
    with pytest.raises(RecipeError, match=r"window \[0\.6, 1\.0\], `probe\.every` = 16 .* its 4"):
        run(probe, *settings)
    assert trained == []


def test_continuing_adds_the_next_seeds_and_none_twice(measured, trained, run):
    run(probe, "probe.seeds=2")
    scores, _ = run(continue_probe, "probe.seeds=2")
    assert same(scores, reduce(add, measured[1][:3]))
    scores, _ = run(continue_probe, "probe.seeds=2", n_seeds=1)
    assert same(scores, reduce(add, measured[1]))
    assert trained == [0, 1, 2, 3]
    # A run that goes on from here takes what is there.
    scores, _ = run(probe, "probe.seeds=2")
    assert same(scores, reduce(add, measured[1]))
    assert trained == [0, 1, 2, 3]


def test_a_continuation_that_is_killed_is_repeated_as_it_was(measured, monkeypatch, run):
    run(probe)

    def killed(training, *arguments):
        if training.seed == 2:
            raise KeyboardInterrupt
        return train_told(training, *arguments)

    monkeypatch.setattr(pool, "train_told", killed)
    with pytest.raises(KeyboardInterrupt):
        run(continue_probe, n_seeds=2)
    monkeypatch.setattr(pool, "train_told", train_told)
    scores, _ = run(continue_probe, n_seeds=2)
    assert same(scores, reduce(add, measured[1][:3]))


def test_scores_of_another_recipe_are_measured_anew(measured, run):
    """The scores in the folder are of an earlier, other recipe, and cannot be added to."""
    run(probe, "seed=1")
    with pytest.raises(RecipeError, match="--continue needs the recipe that the scores"):
        run(continue_probe)
    scores, _ = run(probe)
    assert same(scores, measured[1][0])


@pytest.mark.parametrize("other", ["split.k=7", "split.rule=mass", "compare.seeds=5"])
def test_what_comes_after_a_probe_does_not_change_it(measured, trained, run, other):
    first, _ = run(probe, "probe.seeds=2")
    again, _ = run(probe, "probe.seeds=2", other)
    assert same(first, again)
    assert trained == [0, 1], "asked for once"


def test_more_seeds_are_added_to_what_is_there(measured, trained, run):
    run(probe)
    scores, _ = run(probe, "probe.seeds=3")
    assert same(scores, reduce(add, measured[1][:3]))


def test_a_probe_in_low_memory_measures_the_same(measured, run):
    scores, _ = run(probe, "train.low_memory=true")
    expected = measured[1][0]
    assert scores.steps == expected.steps
    for name in ("projection", "mass", "inner"):
        torch.testing.assert_close(
            scores.tensors[name], expected.tensors[name], rtol=1e-2, atol=1e-4
        )


def test_a_probe_of_sketches_is_repeated_bit_for_bit_and_estimates(measured, run):
    """Norms of the whole gradients lie near the exact ones; layers that fit are exact."""
    folder, parts = measured
    scores, _ = run(probe, "probe.sketch=64", "probe.seeds=1")
    recipe = load_recipe(folder / "tiny.toml", ["probe.sketch=64"])
    training = probe_training(Run(recipe, folder / "again", workers=1), 0)
    again = train(training, Run(recipe, folder / "again", workers=1)).directory
    assert same(scores, ConflictScores.load(again / "scores.safetensors"))
    assert scores.steps == parts[0].steps
    exact, found = (each.tensors["inner"].sum((0, 1, 2)) for each in (parts[0], scores))
    assert not torch.equal(exact, found)
    torch.testing.assert_close(found, exact, rtol=0.3, atol=0.3)


def test_the_command_line(tmp_path, invoke):
    (tmp_path / "tiny.toml").write_text(TINY)

    def call(*arguments):
        return invoke("probe", "tiny.toml", "--workers", "1", *arguments)

    code, _, error = call("--continue")
    assert code == 2
    assert error.startswith("error: --continue needs the scores of a finished probe")
    assert not (tmp_path / "runs").exists()
    code, _, error = call("--seeds", "2")
    assert code == 2
    assert "--seeds needs --continue" in error
    assert call()[0] == 0
    assert call("--continue", "--seeds", "2")[0] == 0
    scores = ConflictScores.load(tmp_path / "runs/tiny/scores.safetensors")
    assert scores.metadata["seeds"] == [0, 1, 2]
    assert scores.steps == 12  # 4 steps a seed
    code, _, error = call("--continue", "--set", "split.k=4")
    assert code == 2
    assert "goes on with the recipe it began with" in error
    assert error.count("\n") == 1
