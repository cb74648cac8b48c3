"""What `validate` finds by taking steps."""

import tomllib

import pytest
import torch

import recon_search as rs
from recon_search.data.source import PARTS
from recon_search.data.task_data import TaskData
from recon_search.errors import RecipeError, ReconSearchError, TrainingError
from recon_search.memory import total_memory
from recon_search.recipe import DataConfig, parse_recipe
from recon_search.runs import run as running
from recon_search.runs.run import Run
from recon_search.stages import rehearsal
from recon_search.stages.check import check, remark
from recon_search.stages.rehearsal import check_measured, rehearse
from recon_search.training import loop
from tests.stages.recipes import TINY


def make_run(out, **sections):
    raw = tomllib.loads(TINY)
    for name, values in sections.items():
        raw[name] = raw.get(name, {}) | values
    return Run(parse_recipe(raw), out)


def list_steps(monkeypatch):
    """The trainings of a rehearsal, a pair (method, is split) a call."""
    found = []
    fit = rehearsal.fit_training

    def note(training, run, **others):
        found.append((training.train.method, training.split is not None, run.recipe.split.k))
        return fit(training, run, **others)

    monkeypatch.setattr(rehearsal, "fit_training", note)
    return found


def test_every_way_of_training_is_tried_twice_and_leaves_nothing(tmp_path, monkeypatch):
    found = list_steps(monkeypatch)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run = make_run(tmp_path / "out", search={"space": {"train.method": ["imtl-l"], "split.k": [1]}})
    assert rehearse(run) == ""
    assert [each[:2] for each in found[::2]] == [
        ("joint", False), ("joint", True), ("pcgrad", True), ("imtl-l", True)
    ]  # fmt: skip
    assert found[::2] == found[1::2]
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"train": {"lr": 1e300}}, RecipeError, r"must fit float32, got lr = 1e\+300"),
        ({"train": {"lr": 1e20}}, TrainingError, "must be finite.*Lower train.lr"),
        ({"train": {"batch_size": 1}}, RecipeError, "Batches of 1 .* too small"),
        ({"search": {"space": {"train.lr": [0.1, 1e39]}}}, RecipeError, r"float32.*1e\+39"),
        ({"search": {"space": {"train.batch_size": [32, 1]}}}, RecipeError, "Batches of 1"),
        ({"probe": {"every": 9, "window": [0.6, 1.0]}}, RecipeError, "`probe.every` = 9"),
        ({"head": {"kind": "torch.nn:Bilinear", "args": {"out_features": 2}}}, RecipeError,
         "by joint must work, they met TypeError"),
    ],
)  # fmt: skip
def test_what_checks_let_pass_is_found_by_steps(tmp_path, sections, error, message):
    run = make_run(tmp_path, **sections)
    check(run)
    with pytest.raises(error, match=message) as raised:
        rehearse(run)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_that_cannot_be_gone_on_from_is_found(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyError("exp_avg")

    monkeypatch.setattr(loop, "resume", fail)
    with pytest.raises(RecipeError, match=r"Two steps of training resnet18.*exp_avg"):
        rehearse(make_run(tmp_path))


@pytest.mark.parametrize("limit", ["MOST_FLOPS", "MOST_PARAMETERS"])
def test_what_takes_too_long_is_not_tried_and_said(tmp_path, monkeypatch, limit):
    found = list_steps(monkeypatch)
    monkeypatch.setattr(rehearsal, limit, 10)
    assert rehearse(make_run(tmp_path)).startswith("Not tried: training steps")
    assert found == []


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"canvas": 100_000}}, "Images must fit into memory.*data.canvas"),
        ({"data": {"train": 10**12}}, "Images must fit into memory.*data.train"),
        (
            {"data": {"train": 2, "validation": 1, "test": 1, "canvas": 20_000}},
            "20000, 20000.*data.canvas",
        ),
        ({"data": {"name": "scenes", "canvas": 100_000}}, "Images must fit into memory"),
        ({"data": {"name": "scenes", "canvas": 64, "train": 60_000}}, "64, 64.*data.train"),
        ({"backbone": {"args": {"channels": [10**6] * 4}}}, "`backbone` resnet18 must fit"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_before_it_is_allocated(
    tmp_path, monkeypatch, sections, message
):
    for module in ("recon_search.data.compose", "recon_search.model.room"):
        monkeypatch.setattr(f"{module}.total_memory", lambda: 8 * 2**30)
    with pytest.raises(ReconSearchError, match=message):
        check(make_run(tmp_path, **sections))


def test_a_machine_has_memory():
    assert total_memory() > 2**28


@pytest.mark.parametrize("seed", [-1, 2**64 + 1, 2**63])
@pytest.mark.parametrize("path", ["seed", "data.seed", "search.seed"])
def test_seeds_that_generators_refuse_are_refused_by_the_recipe(path, seed):
    raw = tomllib.loads(TINY)
    *section, key = path.split(".")
    (raw.setdefault(section[0], {}) if section else raw)[key] = seed
    with pytest.raises(RecipeError, match=f"`{path}`: input should be"):
        parse_recipe(raw)


def test_data_are_found_and_opened_once_for_all_trainings(tmp_path, monkeypatch):
    found = []
    find = running.find_source

    def note(*arguments, **options):
        found.append(arguments)
        return find(*arguments, **options)

    monkeypatch.setattr(running, "find_source", note)
    run = make_run(tmp_path / "out", search={"space": {"train.method": ["imtl-l"], "split.k": [1]}})
    rehearse(run)
    assert len(found) == 1


def test_data_given_from_python_are_rehearsed_with(tmp_path):
    given = make_run(tmp_path / "out", compare={"methods": ["joint"], "controls": ["random"]})
    feed = given.feed
    parts = {
        part: [
            (
                image,
                {"hue": int(batch.targets["left"][row]), "right": int(batch.targets["right"][row])},
            )
            for (batch,) in feed.steps(part, 8)
            for row, image in enumerate(batch.inputs)
        ]
        for part in PARTS
    }
    data = TaskData([rs.Classes("hue", 10), rs.Classes("right", 10)], parts)
    recipe = given.recipe.model_copy(update={"data": DataConfig(name="given", channels=1)})
    assert rehearse(Run(recipe, tmp_path / "out", data=data)) == ""


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(1, "= 1 no difference has an interval"), (2, "only where it is 12 times"), (3, "")],
)
def test_seeds_that_tell_nothing_are_remarked_on(tmp_path, seeds, said):
    found = remark(make_run(tmp_path, compare={"seeds": seeds}).recipe)
    assert said in found
    assert ("take 3 or more" in found) == bool(said)
    assert "\n" not in found


@pytest.mark.parametrize(
    ("every", "step"), [(99, "Lower it, or raise probe.epochs"), (1, "none of its 1. Raise probe")]
)
def test_a_probe_that_would_measure_nothing_is_told_what_helps(tmp_path, every, step):
    run = make_run(
        tmp_path,
        probe={"every": every, "window": [0.6, 1.0], "epochs": 1},
        train={"batch_size": 128},
    )
    with pytest.raises(RecipeError, match=step):
        check_measured(run)
