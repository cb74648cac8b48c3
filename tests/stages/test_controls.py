"""Controls: what each is, and what all of them keep to."""

import itertools
import json
import tomllib
from typing import get_args

import pytest
import torch

from recon_search.errors import RecipeError
from recon_search.model.copies import surplus
from recon_search.model.files import load
from recon_search.model.network import build_model
from recon_search.recipe import CompareConfig, parse_recipe
from recon_search.runs import trainer as trainings
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.trainer import train
from recon_search.stages import compare as stage
from recon_search.stages.check import check
from recon_search.stages.compare import plan
from recon_search.stages.controls import choose_control, control_name, weightings
from recon_search.stages.export import export
from recon_search.stages.split import choose_by_rule, choose_split
from tests.stages.recipes import TINY
from tests.stages.scores import TASKS, noisy_scores

(_WORDS,) = get_args(CompareConfig.model_fields["controls"].annotation)
CONTROLS = get_args(_WORDS)


def recipe_of(**sections):
    raw = tomllib.loads(TINY)
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    return parse_recipe(raw)


def comparing(*controls, train=(), k=12, data=(), **compare):
    """The tiny recipe with those controls alone, and a split worth a wider network."""
    compare = {"seeds": 2, "methods": ["joint"], "controls": list(controls), **compare}
    return recipe_of(compare=compare, train=dict(train), split={"k": k}, data=dict(data))


def lines_of(recipe, scores, out):
    run = Run(recipe, out)
    return plan(run, choose_split(recipe, scores, schema=run.schema), scores)


@pytest.fixture(scope="module")
def scores():
    return noisy_scores(recipe_of())


@pytest.fixture
def small(scores):
    """Return the last training of a control, which takes two steps an epoch."""

    def make(control, out, epochs):
        recipe = comparing(
            control,
            k=4,
            seeds=1,
            train={"measure_every": 0, "epochs": epochs},
            data={"train": 64, "validation": 16, "test": 16},
        )
        lines = lines_of(recipe, scores, out)
        return lines[-1].trainings[0], Run(recipe, out)

    return make


def sizes(scores):
    return {info["name"]: info["n_parameters"] for info in scores.metadata["layer_infos"]}


class TestEvery:
    """The contract of all controls, those to come too."""

    @pytest.mark.parametrize("control", CONTROLS)
    def test_it_is_a_line_of_its_own_with_every_seed(self, scores, tmp_path, control):
        recipe = comparing(control)
        base = lines_of(comparing(), scores, tmp_path)
        lines = lines_of(recipe, scores, tmp_path)
        own = lines[len(base) :]
        assert lines[: len(base)] == base, "it changes no other line"
        assert own
        for line in own:
            assert [each.seed for each in line.trainings] == [0, 1]
            assert line.role == ("trial" if control == "tuned-weights" else "control")
        run = Run(recipe, tmp_path)
        known = {each.directory(run) for line in base for each in line.trainings}
        found = [each.directory(run) for line in own for each in line.trainings]
        shared = known & set(found)
        joint = next(line for line in base if line.role == "joint")
        allowed = set()
        if control == "tuned-weights":  # equal weights are one of those tried
            allowed = {each.directory(run) for each in joint.trainings}
        assert shared == allowed, "it is trained for itself"
        again = [each for line in lines_of(recipe, scores, tmp_path) for each in line.trainings]
        assert [each.directory(run) for each in again][-len(found) :] == found, "found again"

    def test_names_and_trainings_are_all_different(self, scores, tmp_path):
        recipe = comparing(*CONTROLS)
        run, lines = Run(recipe, tmp_path), lines_of(recipe, scores, tmp_path)
        assert len({line.name for line in lines}) == len(lines)
        by_line = {
            line.name: {each.directory(run) for each in line.trainings}
            for line in lines
            if line.role == "control"
        }
        for (one, first), (other, second) in itertools.combinations(by_line.items(), 2):
            assert not first & second, (one, other)

    @pytest.mark.parametrize("control", CONTROLS)
    def test_it_is_trained_once_and_exported(self, scores, small, tmp_path, control, monkeypatch):
        training, run = small(control, tmp_path, epochs=1)
        result = train(training, run)
        model = load(result.directory / "model")
        assert result.n_parameters == model.n_parameters
        if training.split is not None:
            analysis = training.facts(run).analysis
            plain = build_model(
                training.backbone, run.recipe.heads, run.schema.tasks, shape=run.schema.shape
            )
            added = sum(sizes(scores)[layer] for layer in training.split.layers)
            added += surplus(analysis, training.split, training.copies)
            assert result.n_parameters == plain.n_parameters + added
            base = trainings.count_flops(plain, torch.zeros(1, *run.schema.shape))
            expected = base * analysis.flops_of(training.split)
            assert result.flops == pytest.approx(expected, rel=0.01), "of folded copies"

        def refuse(*args, **kwargs):
            raise AssertionError("trained already")

        monkeypatch.setattr(trainings, "fit_training", refuse)
        assert train(training, run) == result
        target = tmp_path / "left.safetensors"
        assert export(result.directory / "model", "timm", "left", target) < 1e-4

    @pytest.mark.parametrize("control", ["sparse", "low-rank", "norm-gates", "tuned-weights"])
    def test_it_is_resumed_to_the_bit(self, small, tmp_path, control):
        """Others are trained as any split is."""
        training, run = small(control, tmp_path, epochs=2)

        def leave(record):
            if record["epoch"] == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(training, run, after_epoch=leave)
        found = load(train(training, run).directory / "model").state_dict()
        whole = trainings.fit_training(training, Run(run.recipe, tmp_path / "other"))[0]
        state = whole.state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())


@pytest.mark.parametrize(("k", "seed"), [(1, 0), (3, 1), (8, 2)])
def test_random_layers_of_equal_flops(scores, tmp_path, k, seed):
    recipe = recipe_of(split={"k": k})
    run = Run(recipe, tmp_path)
    analysis = run.facts.analysis
    like = choose_by_rule(recipe, scores, "random", k, seed + 10)
    found = choose_control(recipe, scores, "random-flops", like, seed, schema=run.schema)
    ratio = analysis.flops_of(found)
    assert len(found.layers) == k
    assert found.chosen["flops"] == pytest.approx(ratio, abs=1e-4)
    assert abs(ratio - analysis.flops_of(like)) < 0.06
    again = choose_control(recipe, scores, "random-flops", like, seed, schema=run.schema)
    assert again == found
    other = choose_control(recipe, scores, "random-flops", like, seed + 1, schema=run.schema)
    assert k == 1 or other != found


def test_rules_fill_budgets(scores, tmp_path):
    """Another layer would cost more than the budget, or be one too many."""
    recipe = comparing(k=3, rules=["count", "random"], budgets=["1.1x", "1.5x"])
    run = Run(recipe, tmp_path)
    analysis = run.facts.analysis
    lines = [line for line in lines_of(recipe, scores, tmp_path) if line.role == "rule"]
    assert [line.name for line in lines] == [
        f"rule {rule}, {budget} FLOPs"
        for rule in ("count", "random")
        for budget in ("1.1x", "1.5x")
    ]
    for line in lines:
        limit = float(line.name.split()[2].removesuffix("x"))
        for training in line.trainings:
            chosen = training.split.chosen["ranking"]
            assert analysis.flops_of(training.split) <= limit
            assert len(chosen) == 3
            assert training.split.chosen["max_flops"] == f"{limit}x"
        same = line.trainings[0].split == line.trainings[1].split
        assert same is line.name.startswith("rule count")


def test_loss_weights_are_drawn_once_and_have_mean_one():
    recipe = comparing("tuned-weights", weight_trials=5)
    found = weightings(recipe, TASKS)
    assert found == weightings(recipe, TASKS)
    assert found[0] == {}
    assert len({tuple(each.values()) for each in found}) == 5
    for weights in found[1:]:
        assert list(weights) == list(TASKS)
        assert sum(weights.values()) / len(TASKS) == pytest.approx(1, abs=0.01)
        assert min(weights.values()) >= 0.01


def test_the_best_weights_on_validation_data_are_a_row_that_says_its_trials(
    scores, tmp_path, monkeypatch
):
    """Those of highest validation accuracy have the lowest test accuracy, and win all the same."""

    def pretend(every, run, title):
        found = []
        for training in every:
            worth = training.train.weights.get("left", 1.0)
            seen = {task: {"accuracy": 50 + worth, "loss": 1.0} for task in training.tasks}
            test = {task: {"accuracy": 50 - worth, "loss": 1.0} for task in training.tasks}
            folder = run.out / training.identity(run)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "validation": seen}))
            found.append(
                Result(training.tasks, "joint", training.seed, 1, 1, seen, 1.0, folder, test)
            )
        return found

    monkeypatch.setattr(stage, "train_all", pretend)
    recipe = comparing("random", "tuned-weights", weight_trials=4)
    split = choose_split(recipe, scores)
    found = stage.compare(Run(recipe, tmp_path), split, scores)
    name = control_name("tuned-weights", recipe, split)
    row = next(row for row in found.rows if row.name == name)
    best = max(weights.get("left", 1.0) for weights in weightings(recipe, TASKS))
    assert row.role == "control"
    assert row.metrics["left"]["accuracy"] == [pytest.approx(50 - best)] * 2
    assert len(found.trainings[name]) == 2
    assert not any("weighting" in row.name for row in found.rows if row.name != name)
    assert "best of 4 loss weightings" in name
    assert found.verdict.endswith("took 8 trainings.")
    assert f"left {best:g}" in found.verdict


@pytest.mark.parametrize("path", ["train.weights", "search.space"])
def test_loss_weights_are_those_of_tasks(tmp_path, path):
    own = {"train": {"weights": {"lfet": 2.0}}}
    if path == "search.space":
        own = {"search": {"space": {"train.weights.lfet": [1.0, 2.0]}}}
    with pytest.raises(RecipeError, match=r"must name tasks .*got 'lfet'. Did you mean 'left'"):
        check(Run(recipe_of(**own), tmp_path))


def test_a_budget_of_parameters_is_of_the_copies_there_are(scores, tmp_path):
    """Low-rank copies are cheaper, so that more of them fit."""
    schema = Run(recipe_of(), tmp_path).schema
    whole = recipe_of(split={"k": None, "max_params": "1.3x"})
    low = recipe_of(split={"k": None, "max_params": "1.3x", "copy": "low-rank", "rank": 1})
    few, many = (choose_split(each, scores, schema=schema) for each in (whole, low))
    assert len(many.layers) > len(few.layers)
    analysis = Run(low, tmp_path).facts.analysis
    added = sum(sizes(scores)[layer] for layer in many.layers)
    added += surplus(analysis, many, low.split.copies)
    assert added <= 0.3 * sum(sizes(scores).values())
    random = choose_control(low, scores, "random-params", many, 0, schema=schema)
    own = sum(sizes(scores)[layer] for layer in random.layers)
    assert 0.5 * added < own + surplus(analysis, random, low.split.copies) <= added


@pytest.mark.parametrize("control", ["random", "first-k", "last-k", "least", "smallest-first"])
def test_a_control_has_as_many_layers_as_the_split(scores, control):
    recipe = recipe_of()
    like = choose_split(recipe, scores)
    found = choose_control(recipe, scores, control, like, seed=0)
    assert len(found.layers) == len(like.layers)
    assert found.chosen["rule"] == control
    if control == "first-k":
        assert list(found.layers) == list(scores.layers[:3])
    if control == "last-k":
        assert list(found.layers) == list(scores.layers[-3:])
    if control == "smallest-first":
        own = sizes(scores)
        assert max(own[name] for name in found.layers) <= sorted(own.values())[2]


def test_random_controls_are_drawn_by_seed(scores):
    recipe = recipe_of()
    like = choose_split(recipe, scores)
    for control in ("random", "random-params"):
        drawn = [choose_control(recipe, scores, control, like, seed) for seed in (0, 0, 1, 2)]
        assert drawn[0] == drawn[1]
        assert len({split.digest for split in drawn}) > 1
    assert choose_by_rule(recipe, scores, "random", 3, 1) != choose_by_rule(
        recipe, scores, "random", 3, 2
    )


@pytest.mark.parametrize("k", [3, 20])
@pytest.mark.parametrize("seed", range(3))
def test_a_random_control_of_equal_size_adds_no_more_parameters_than_the_split(scores, k, seed):
    recipe = recipe_of(split={"k": k})
    like, own = choose_split(recipe, scores), sizes(scores)
    found = choose_control(recipe, scores, "random-params", like, seed)
    added, allowed = (sum(own[name] for name in split.layers) for split in (found, like))
    assert 0.5 * allowed < added <= allowed


def test_the_norms_alone_are_all_norms(scores):
    recipe = recipe_of()
    found = choose_control(recipe, scores, "norm-only", choose_split(recipe, scores), seed=0)
    infos = scores.metadata["layer_infos"]
    assert set(found.layers) == {info["name"] for info in infos if info["is_norm"]}
