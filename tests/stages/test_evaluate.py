"""A finished model on data: its own, others, under other names; and what is refused."""

import json

import pytest
import torch

import recon_search as rs
from recon_search.data.registry import find_source
from recon_search.errors import RecipeError
from recon_search.model.network import build_model
from recon_search.recipe import load_recipe
from recon_search.stages.evaluate import _match
from recon_search.tasks.classes import Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.values import Values
from tests.command import call
from tests.stages.recipes import TINY

SMALL = TINY.partition("[compare]")[0] + '[compare]\nseeds = 1\ncontrols = ["random"]\n'
INPUT = {"shape": [1, 12, 12], "mean": [0.5], "std": [0.5]}
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LEFT, RIGHT = Classes("left", 10), Classes("right", 10)
CPU = ["--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run; its folder, and its comparison."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(SMALL)
    return folder, rs.run(folder / "tiny.toml", folder / "out")


def save_model(folder, *tasks, **config):
    """Write a model of random weights for the recipe's backbone, and the recipe."""
    (folder / "tiny.toml").write_text(SMALL)
    recipe = load_recipe(folder / "tiny.toml")
    shape = config.get("input", INPUT)["shape"]
    build_model(recipe.backbone, recipe.head, tasks, shape=shape).save(folder / "model", **config)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_the_exported_model_of_a_run_is_worth_what_the_run_reported_bit_for_bit(finished, part):
    folder, comparison = finished
    done = call("evaluate", "out/model", "tiny.toml", "--part", part, *CPU, cwd=folder)
    assert done.code == 0, done.error
    found = json.loads(done.output)
    result = json.loads((folder / comparison.best.directory / "result.json").read_text())
    assert found["metrics"] == result[part]
    assert found["units"] == {"left": {"accuracy": "%"}, "right": {"accuracy": "%"}}
    assert (found["part"], found["n_samples"]) == (part, 32)


def test_the_table_shows_every_metric_with_its_unit(finished):
    folder, comparison = finished
    done = call("evaluate", "out/model", "tiny.toml", "--device", "cpu", cwd=folder)
    result = json.loads((folder / comparison.best.directory / "result.json").read_text())
    assert f"{result['test']['left']['accuracy']:.2f}" in done.output
    for word in ("left", "right", "accuracy", "loss", "%", "test data, 32 images"):
        assert word in done.output


@pytest.mark.parametrize(
    "pairs", [{}, {"left": "right", "right": "left"}], ids=["own names", "swapped"]
)
def test_other_data_is_made_ready_as_the_model_is_used_to(finished, pairs):
    """Against a computation by hand, with the statistics of config.json."""
    folder, _ = finished
    other = ["data.seed=7", "data.train=64", "data.test=50"]
    arguments = [part for text in other for part in ("--set", text)]
    arguments += [part for pair in pairs.items() for part in ("--map", "=".join(pair))]
    done = call("evaluate", "out/model", "tiny.toml", *CPU, *arguments, cwd=folder)
    assert done.code == 0, done.error
    model = rs.load(folder / "out/model")
    data = load_recipe(folder / "tiny.toml", other).data
    feed = find_source(data).open(torch.device("cpu"))
    known = model.config["input"]
    assert feed.inputs.mean.tolist() != known["mean"]
    ((batch,),) = feed.steps("test", 1000)
    mean, std = torch.tensor(known["mean"]), torch.tensor(known["std"])
    with torch.no_grad():
        outputs = model((batch.inputs / 255 - mean[:, None, None]) / std[:, None, None])
    for task, target in batch.targets.items():
        right = outputs[pairs.get(task, task)].argmax(1) == target
        found = json.loads(done.output)["metrics"][task]["accuracy"]
        assert found == pytest.approx(100 * right.double().mean().item(), abs=1e-4)


@pytest.mark.parametrize(
    ("tasks", "config", "arguments", "message"),
    [
        ([LEFT], INPUT, [], "it has no 'right' but left. Pass --map 'right'=NAME."),
        (
            [LEFT, Classes("Right", 10)],
            INPUT,
            [],
            "left, Right. Did you mean 'Right'?",
        ),
        ([Classes("left", 7), RIGHT], INPUT, [], "must have the number of outputs"),
        (
            [LEFT, Classes("right", 10, class_names=NAMES)],
            INPUT,
            [],
            "class 0 is 'zero'",
        ),
        ([LEFT, RIGHT], {**INPUT, "shape": [3, 12, 12]}, [], "(3, 12, 12), those of the"),
        ([LEFT, RIGHT], {**INPUT, "shape": [1, 16, 16]}, [], "(1, 16, 16), those of the"),
        ([LEFT, RIGHT], {"shape": [1, 12, 12]}, [], "no input with shape, mean and std"),
        ([LEFT, RIGHT], INPUT, ["--map", "lft=left"], "'lft' but left, right. Did you mean"),
        ([LEFT, RIGHT], INPUT, ["--map", "left=right"], "'right' is two"),
        ([LEFT, RIGHT], INPUT, ["--map", "left"], "--map must be NEW=OLD, got 'left'"),
        ([LEFT, RIGHT], INPUT, ["--set", "data.name=multi"], "`data.name` must be one of"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    tmp_path, invoke, tasks, config, arguments, message
):
    save_model(tmp_path, *tasks, input=config)
    code, output, error = invoke("evaluate", "model", "tiny.toml", *CPU, *arguments)
    assert (code, output) == (2, "")
    assert message in error
    assert "Traceback" not in error


def test_a_model_that_has_more_tasks_than_the_recipe_is_measured_on_those_of_the_recipe(
    tmp_path, invoke
):
    save_model(tmp_path, Classes("more", 3), RIGHT, LEFT, input=INPUT)
    done = invoke("evaluate", "model", "tiny.toml", *CPU)
    assert list(json.loads(done.output)["metrics"]) == ["left", "right"]


@pytest.mark.parametrize(
    ("make", "units"),
    [(Values, ("years", "months")), (Depth, ("m", "mm"))],
    ids=["values", "depth"],
)
def test_numbers_in_another_unit_are_refused(make, units):
    ours, theirs = (make("a", unit=unit) for unit in units)
    with pytest.raises(RecipeError, match=f"must have the unit that .* {units[1]}, .*{units[0]}"):
        _match([ours], {"a": theirs}, {})
    for one, other in ((ours, ours), (ours, make("a")), (make("a"), ours)):
        assert _match([one], {"a": other}, {}) == [(one, "a")]
