"""What a comparison trains, and what it makes of it; nothing is trained here."""

import json
import tomllib
from pathlib import Path

import pytest

from recon_search.errors import RecipeError
from recon_search.recipe import parse_recipe
from recon_search.runs.comparison import Comparison
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.stages import compare as stage
from recon_search.stages.check import check
from recon_search.stages.compare import plan
from recon_search.stages.split import choose_split
from tests.stages.recipes import TINY
from tests.stages.scores import TASKS, noisy_scores


def recipe_with(**compare):
    return parse_recipe(tomllib.loads(TINY) | {"compare": compare})


def test_rules_are_trained_at_every_size_and_seed():
    recipe = recipe_with(
        seeds=2, methods=["joint"], controls=[], rules=["count", "projection", "random"], ks=[3, 5]
    )
    scores = noisy_scores(recipe)
    run = Run(recipe, Path("out"))
    lines = {line.name: line for line in plan(run, choose_split(recipe, scores), scores)}
    chosen = {name: line for name, line in lines.items() if line.role == "rule"}
    assert len(chosen) == 3 * 2
    for name, line in chosen.items():
        rule, k = name.removeprefix("rule ").removesuffix(" layers").split(", ")
        first, second = line.trainings
        assert (first.seed, second.seed) == (0, 1)
        assert len(first.split.layers) == int(k)
        assert first.split.chosen["rule"] == rule
        same = first.split == second.split
        assert same is (rule != "random"), "a random order is drawn anew for every seed"

    split = lines["joint, split"].trainings[0]
    equal = chosen["rule count, 3 layers"].trainings[0]
    assert equal.directory(run) == split.directory(run), "trained once"


def test_roles_are_fields_and_the_baselines_come_first():
    recipe = recipe_with(seeds=2, methods=["joint", "pcgrad"], controls=["random", "norm-only"])
    scores = noisy_scores(recipe)
    lines = plan(Run(recipe, Path("out")), choose_split(recipe, scores), scores)
    roles = ["single"] * 2 + ["joint", "split"] * 2 + ["control"] * 2
    assert [line.role for line in lines] == roles
    assert [line.trainings[0].tasks for line in lines[:2]] == [(task,) for task in TASKS]
    assert {line.trainings[0].train.method for line in lines[6:]} == {"joint"}


ACCURACY = {"single": 50.0, "joint": 40.0, "split": 60.0, "control": 45.0, "rule": 55.0}


@pytest.fixture
def trained(monkeypatch):
    """Trainings that take no time, whose validation data say the opposite of their test data."""

    def pretend(trainings, run, title):
        roles = {t.identity(run): line.role for line in lines(run) for t in line.trainings}
        results = []
        for training in trainings:
            accuracy = ACCURACY[roles[training.identity(run)]] + training.seed
            accuracy += 5 * (training.train.method == "pcgrad")
            seen = {task: {"accuracy": 100 - accuracy, "loss": 1.0} for task in training.tasks}
            test = {task: {"accuracy": accuracy, "loss": 1.0} for task in training.tasks}
            size = 10 * len(training.tasks) + 7 * (training.split is not None)
            folder = run.out / training.identity(run)
            folder.mkdir(parents=True, exist_ok=True)
            records = [json.dumps({"epoch": n + 1, "validation": seen}) for n in range(5)]
            (folder / "metrics.jsonl").write_text("\n".join(records))
            found = training.tasks, training.train.method, training.seed, size, 2 * size
            results.append(Result(*found, seen, 1.0, folder, test))
        return results

    def lines(run):
        scores = noisy_scores(run.recipe)
        return plan(run, choose_split(run.recipe, scores), scores)

    monkeypatch.setattr(stage, "train_all", pretend)


def test_a_comparison_is_made_of_what_was_trained(tmp_path, trained):
    """Baselines, roles, methods and seeds end up in their own places."""
    recipe = recipe_with(
        seeds=3, methods=["joint", "pcgrad"], controls=["random"], rules=["mass"], ks=[5]
    )
    scores, run = noisy_scores(recipe), Run(recipe, tmp_path)
    found = stage.compare(run, choose_split(recipe, scores), scores)
    assert found.seeds == [0, 1, 2]
    assert found.directions == {task: {"accuracy": 1} for task in TASKS}
    assert found.units == {task: {"accuracy": "%"} for task in TASKS}
    assert found.single == {task: {"accuracy": [50, 51, 52], "loss": [1.0] * 3} for task in TASKS}
    assert found.single_parameters == 20
    rows = {row.name: row for row in found.rows}
    assert [(row.role, row.method) for row in found.rows] == [
        ("joint", "joint"),
        ("split", "joint"),
        ("joint", "pcgrad"),
        ("split", "pcgrad"),
        ("control", "joint"),
        ("rule", "joint"),
        ("separate", "joint"),
    ]
    singles = [50, 51, 52]
    assert rows["joint, split"].delta_m == pytest.approx([1000 / each for each in singles])
    assert rows["joint, unsplit"].delta_m == pytest.approx([-1000 / each for each in singles])
    assert rows["pcgrad, split"].delta_m == pytest.approx([1500 / each for each in singles])
    assert rows["joint, unsplit"].outcome == "beaten"
    assert rows["pcgrad, split"].outcome == "better"
    assert rows["joint, split"].minus_split is None
    assert rows["joint, unsplit"].n_parameters == 20
    assert rows["joint, split"].flops == 54
    assert 'Against joint training, "joint, split" beats "joint, unsplit" by ' in found.verdict
    assert 'Against splits by rule, "joint, split" beats "rule mass, 5 layers" by' in found.verdict
    best = found.best
    assert (best.name, best.seed) == ("joint, split", 0), "the worst on test data"
    assert best.validation_delta_m == pytest.approx(100 * (40 - 50) / 50)
    assert found.warning == ""
    assert Comparison.load(tmp_path / "comparison.json") == found


def test_seeds_follow_the_recipes_own(tmp_path, trained):
    recipe = recipe_with(seeds=2, methods=["joint"], controls=[]).model_copy(update={"seed": 7})
    scores, run = noisy_scores(recipe), Run(recipe, tmp_path)
    found = stage.compare(run, choose_split(recipe, scores), scores)
    assert found.seeds == [7, 8]
    assert found.rows[0].metrics["left"]["accuracy"] == [47.0, 48.0]


def test_rules_and_sizes_need_each_other():
    with pytest.raises(RecipeError, match=r"compare.ks"):
        recipe_with(rules=["count"])


def test_delta_m_may_be_of_some_tasks_alone(tmp_path, trained):
    """Of forty tasks nobody trains forty baselines."""
    recipe = recipe_with(seeds=2, controls=["random"], single=[TASKS[1]])
    scores, run = noisy_scores(recipe), Run(recipe, tmp_path)
    lines = plan(run, choose_split(recipe, scores), scores)
    assert [line.name for line in lines if line.role == "single"] == [f"single {TASKS[1]}"]
    found = stage.compare(run, choose_split(recipe, scores), scores)
    assert list(found.single) == list(found.directions) == [TASKS[1]]
    assert found.verdict.endswith(f'delta_m is of 1 of the 2 tasks: "{TASKS[1]}".')
    rows = {row.name: row for row in found.rows}
    assert rows["joint, split"].delta_m == pytest.approx([1000 / each for each in (50, 51)])


def test_a_task_to_be_judged_must_be_there():
    run = Run(recipe_with(single=["lfet"]), Path("out"))
    with pytest.raises(RecipeError, match=r"must name tasks .*got 'lfet'. Did you mean 'left'"):
        check(run)
