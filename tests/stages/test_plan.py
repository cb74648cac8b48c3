"""A plan, held against the run that it is of."""

import json
from dataclasses import replace

import pytest
import torch

import recon_search as rs
from recon_search.conflict.scores import ConflictScores
from recon_search.recipe import load_recipe
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.timing import Span
from recon_search.stages.compare import plan as lines_of
from recon_search.stages.plan import (
    _Planner,
    _together,
    _total,
    even_scores,
    make_plan,
)
from recon_search.stages.planned import StepCost
from recon_search.stages.probe import probe_training
from recon_search.stages.split import choose_split
from recon_search.views.plan import describe, step_table
from tests.stages.recipes import TINY

SMALL = (
    TINY.replace("seeds = 2", "seeds = 1")
    .replace("[probe]\nepochs = 1", "[probe]\nepochs = 1\nmethod = 'mgda'")
    .replace('"random-params", ', "")
    .replace(', "wider"', "")
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A plan of a recipe without a run, and the run."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "tiny.toml").write_text(SMALL)
    run = Run(load_recipe(folder / "tiny.toml"), folder / "out", workers=1)
    before = torch.get_rng_state()
    planned = make_plan(run)
    assert torch.equal(torch.get_rng_state(), before)
    assert not run.out.exists()
    rs.run(run.recipe, run.out)
    return run, planned


def results(run):
    """The run's results by line of the comparison, and that of the probe."""
    scores = ConflictScores.load(run.out / "scores.safetensors")
    lines = lines_of(run, choose_split(run.recipe, scores), scores)
    return {
        line.name: [Result.load(training.directory(run)) for training in line.trainings]
        for line in lines
    }


def test_a_plan_names_every_network_and_their_sizes_hold(ran):
    run, planned = ran
    found = results(run)
    assert [line.name for line in planned.lines] == ["probe", *found]
    for line in planned.lines[1:]:
        for result in found[line.name]:
            low, high = line.parameters
            assert low <= result.n_parameters <= high
            low, high = line.flops
            assert low <= result.flops <= high
            assert result.method == line.method
    known = [line for line in planned.lines if line.role in ("probe", "single", "joint")]
    known += [line for line in planned.lines if line.name in ("first 3 layers", "norm layers only")]
    assert len(known) == 7
    for line in known:
        assert line.parameters[0] == line.parameters[1]
        assert line.flops[0] == line.flops[1]
    guessed = {line.name for line in planned.lines if line.parameters[0] < line.parameters[1]}
    assert {"joint, split", "pcgrad, split", "least conflict 3"} <= guessed
    assert not planned.is_probed


def test_the_time_is_of_the_order_of_what_the_run_took(ran):
    """Within a factor of four: other work on the machine comes and goes in between."""
    run, planned = ran
    took = sum(result.seconds for line in results(run).values() for result in line)
    expected = sum(line.seconds.middle * line.trainings for line in planned.lines[1:])
    assert took / 4 < expected < 4 * took
    assert planned.seconds.low <= planned.seconds.middle <= planned.seconds.high


def test_reading_images_and_writing_checkpoints_take_time(ran):
    """Of weights and two moments of each a checkpoint is three times as large as the weights."""
    run, _ = ran
    fresh = Run(run.recipe, run.out, workers=1)
    planner = _Planner(fresh, None)
    assert planner.opening.middle > 0
    training = probe_training(fresh, 0)
    network = planner._network(training)
    assert network.saving.middle > 0
    once = planner._seconds(training, is_tested=False).middle
    longer = training.train.model_copy(update={"epochs": training.train.epochs + 1})
    twice = planner._seconds(replace(training, train=longer), is_tested=False).middle
    epoch = network.validation.middle + network.saving.middle
    assert once > planner.opening.middle + network.setup.middle + epoch
    assert twice - once > epoch


def test_a_plan_says_what_is_not_in_it_and_that_its_machine_counts(ran):
    _, planned = ran
    text = describe(planned)
    assert "Not in it: starting processes, export and report" in text
    assert "may make it several times as long" in text


def test_every_kind_of_step_is_timed_once_and_measuring_costs(ran):
    _, planned = ran
    kinds = [(step.network, step.method, step.measured) for step in planned.steps]
    assert len(set(kinds)) == len(kinds)
    for network in ("unsplit", "split"):
        for method in ("joint", "pcgrad"):
            assert {(network, method, False), (network, method, True)} <= set(kinds)
    assert ("unsplit", "mgda", True) in kinds
    assert ("one task", "joint", False) in kinds


@pytest.mark.parametrize(
    ("overrides", "sets"),
    [
        ([], 2),
        (["probe.sketch=16"], 1),
        (["train.low_memory=true"], 1),
        (["probe.method=pcgrad"], 2),
        (["probe.method=graddrop"], 4),
        (["probe.method=uw"], 2),
    ],
    ids=str,
)
def test_the_gradients_that_a_step_keeps_are_counted(ran, overrides, sets):
    """In sets of the network's: of two tasks that share all but their heads."""
    run, _ = ran
    recipe = load_recipe(run.out.parent / "tiny.toml", ["probe.method=joint", *overrides])
    planner = _Planner(run.with_recipe(recipe), None)
    training = probe_training(planner.run, 0)
    plain, kept = (planner._gradients(training, measured) for measured in (False, True))
    if "probe.method=pcgrad" in overrides:
        assert plain == kept  # it needs every task's gradient anyhow
    assert kept > 4 * planner._size(training)[0] * (sets - 0.2)
    assert kept < 4 * planner._size(training)[0] * (sets + 0.6)


def test_a_step_that_samples_tasks_keeps_one_set_for_the_others(ran):
    """Of two tasks: one's own and that of all parameters, where two tasks' own were."""
    run, _ = ran
    planner = _Planner(run, None)
    full, sampled = (
        replace(
            training := probe_training(run, 0),
            train=training.train.model_copy(update={"method": "cagrad", "options": options}),
        )
        for options in ({}, {"tasks_per_step": 1})
    )
    assert planner._gradients(sampled, True) == planner._gradients(full, False)
    more = planner._gradients(sampled, False) - planner._gradients(full, False) // 2
    assert more == 4 * planner._size(full)[0]


def test_steps_that_cost_many_plain_ones_are_said_to(ran):
    _, planned = ran
    steps = [
        StepCost("unsplit", "joint", False, 0, 0, Span(1.0, 1.0, 1.0), 100),
        StepCost("unsplit", "joint", True, 0, 0, Span(33.0, 33.0, 33.0), 4000),
        StepCost("unsplit", "joint", True, 6, 512, Span(3.9, 3.9, 3.9), 130),
        StepCost("unsplit", "pcgrad", False, 0, 0, Span(34.0, 34.0, 34.0), 4000),
        StepCost("split", "pcgrad", False, 0, 0, Span(34.0, 34.0, 34.0), 4000),
    ]
    plan = replace(planned, steps=steps)
    text = describe(plan)
    assert "of all tasks takes 33 joint steps (unsplit): `probe.tasks_per_step`" in text
    assert "A step of pcgrad takes 34 joint steps (unsplit)" in text
    assert text.count("joint steps") == 2
    cells = [list(column.cells) for column in step_table(plan).columns]
    assert cells[1][2] == "joint, measured 6 tasks, sketch 512"
    assert cells[3] == ["1.00x", "33.00x", "3.90x", "34.00x", ""]
    assert cells[4][1].endswith("40.0x")


def test_of_a_finished_run_nothing_is_left(ran):
    run, planned = ran
    assert planned.n_trainings == sum(line.trainings for line in planned.lines)
    scores = ConflictScores.load(run.out / "scores.safetensors")
    after = make_plan(run, scores)
    assert after.is_probed
    assert after.n_trainings == 0
    assert after.seconds == Span(0.0, 0.0, 0.0)
    for line in after.lines:
        for result in results(run).get(line.name, []):
            assert line.parameters[0] <= result.n_parameters <= line.parameters[1]
            assert line.flops[0] <= result.flops <= line.flops[1]


@pytest.mark.parametrize("rule", ["projection", "mass", "gain", "count", "least"])
def test_without_a_probe_the_first_layers_stand_for_the_split(ran, rule):
    run, _ = ran
    section = run.recipe.split.model_copy(update={"rule": rule, "grouping": "colour"})
    recipe = run.recipe.model_copy(update={"split": section})
    scores = even_scores(run)
    assert list(choose_split(recipe, scores).layers) == list(scores.layers[:3])


def test_workers_take_one_training_after_another():
    assert _together([3.0, 1.0, 1.0, 1.0, 2.0], 1) == 8
    assert _together([3.0, 1.0, 1.0, 1.0, 2.0], 2) == 5
    assert _together([], 2) == 0


@pytest.mark.parametrize(
    ("confidence", "seeds", "expected"), [(None, 4, (4, 8, 12)), (0.7, 6, (2, 8, 18))]
)
def test_a_probe_that_may_stop_takes_two_seeds_at_least(ran, confidence, seeds, expected):
    run, _ = ran
    section = run.recipe.probe.model_copy(update={"confidence": confidence, "seeds": seeds})
    run = run.with_recipe(run.recipe.model_copy(update={"probe": section}))
    assert _total(run, [[Span(1.0, 2.0, 3.0)] * seeds], 1) == Span(*map(float, expected))


def test_the_command_prints_a_table_or_json(tmp_path, invoke):
    text = TINY.partition("[compare]")[0] + "[compare]\nseeds = 2\ncontrols = []\n"
    (tmp_path / "tiny.toml").write_text(text)
    done = invoke("plan", "tiny.toml", "--device", "cpu", "--workers", 2, "--json")
    assert done.code == 0, done.error  # which counts networks where that takes long
    values = json.loads(done.output)
    assert [line["name"] for line in values["lines"]] == [
        "probe", "single left", "single right", "joint, unsplit", "joint, split",
    ]  # fmt: skip
    assert (values["workers"], values["n_trainings"]) == (2, 9)
    assert values["memory"] > 1e7
    done = invoke("plan", "tiny.toml", "--device", "cpu", "--workers", 1)
    for word in ("joint, split", "joint, measured", "9 trainings, one at a time", "iB"):
        assert word in done.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "split.k=80"], "`split.k` must be between"),
        (["--scores", "nowhere.safetensors"], "found no file at nowhere.safetensors"),
    ],
)
def test_what_cannot_be_planned_is_one_line(tmp_path, invoke, arguments, message):
    (tmp_path / "tiny.toml").write_text(TINY)
    code, output, error = invoke("plan", "tiny.toml", *arguments)
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert message in error
