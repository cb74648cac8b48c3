"""What a result depends on counts, every key of it; what it does not depend on changes nothing."""

import hashlib
import itertools
import json
import os
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from recon_search import identity
from recon_search.errors import ArtefactError
from recon_search.graph.split import Split
from recon_search.recipe import CopyConfig, Recipe, TrainConfig, parse_recipe
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.stages.probe import probe_training
from recon_search.tasks.classes import Classes
from tests.idx import write_item_set
from tests.stages.recipes import TINY

OTHER = {
    "seed": 5,
    "data.file": "labels.csv",
    "data.image": "photo",
    "data.split": "part",
    "data.ratio": [0.5, 0.25, 0.25],
    "data.group": "patient",
    "data.missing": ["NA"],
    "data.tasks": ["depth"],
    "data.delimiter": ";",
    "data.own_batches": True,
    "data.factory": "package.module:other",
    "data.args": {"n": 3},
    "data.image_size": [32, 48],
    "data.channels": 1,
    "data.resize": "stretch",
    "data.crop": 0.875,
    "data.interpolation": "bicubic",
    "data.statistics": "timm",
    "data.augment": {"flip": 0.5},
    "data.workers": 2,
    "data.cache": "none",
    "data.name": "multi-mnist",
    "data.root": "elsewhere",
    "data.download": True,
    "data.train": 64,
    "data.validation": 64,
    "data.test": 64,
    "data.canvas": 16,
    "data.seed": 1,
    "backbone.name": "resnet34",
    "backbone.args": {"channels": [4, 4, 8, 16]},
    "backbone.features": 5,
    "backbone.weights": "donor.safetensors",
    "backbone.pretrained": True,
    "backbone.levels": [1, 2],
    "head.kind": "mlp",
    "head.activation": "gelu",
    "head.hidden": 3,
    "head.args": {"depth": 2},
    "head.neck": "wide",
    "tasks.left": {"head": {"kind": "mlp"}},
    "necks.wide": {"hidden": 64},
    "train.method": "pcgrad",
    "train.options": {"c": 0.5},
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.accumulate": 2,
    "train.optimizer": "adamw",
    "train.lr": 0.1,
    "train.layer_decay": 0.75,
    "train.head_lr_scale": 10.0,
    "train.weights": {"left": 2.0},
    "train.update_share": 0.5,
    "train.freeze": ["layer1.*"],
    "train.momentum": 0.5,
    "train.weight_decay": 0.1,
    "train.scheduler": "step",
    "train.milestones": [1],
    "train.decay_rate": 0.5,
    "train.warmup_epochs": 1,
    "train.min_lr": 0.001,
    "train.clip_grad": 1.0,
    "train.precision": "bfloat16",
    "train.grad_checkpointing": True,
    "train.ema": 0.9,
    "train.ema_warmup": False,
    "train.patience": 2,
    "train.select": "best",
    "train.report_epochs": 2,
    "train.non_finite": "skip",
    "train.measure_every": 3,
    "train.measure_tasks": 2,
    "train.measure_sketch": 64,
    "train.low_memory": True,
    "probe.epochs": 2,
    "probe.every": 2,
    "probe.tasks_per_step": 2,
    "probe.sketch": 64,
    "probe.method": "pcgrad",
    "probe.seeds": 2,
    "probe.confidence": 0.5,
    "probe.window": [0.5, 1.0],
    "split.rule": "mass",
    "split.k": 4,
    "split.max_params": "1.2x",
    "split.max_flops": "1.5x",
    "split.threshold": -0.1,
    "split.grouping": "colour",
    "split.group_share": 0.25,
    "split.max_groups": 2,
    "split.init": "fresh",
    "split.copy": "low-rank",
    "split.when": "during",
    "split.at": 0.75,
    "split.rank": 2,
    "compare.seeds": 3,
    "compare.methods": ["pcgrad"],
    "compare.controls": ["random"],
    "compare.rules": ["count"],
    "compare.ks": [4],
    "compare.budgets": ["1.3x"],
    "compare.update_share": 0.5,
    "compare.weight_trials": 4,
    "compare.single": ["left"],
    "compare.splits": {"other": "donor.safetensors"},
    "compare.map": {"left": "a", "right": "b"},
    "compare.delta_m": "flat",
    "compare.during": True,
    "search.trials": 3,
    "search.seed": 1,
    "search.objective": "delta_m-flops",
    "search.seeds": 2,
    "search.max_params": "1.2x",
    "search.space": {"train.lr": [0.1, 0.2]},
    "search.start": "shared",
    "search.pruner": "none",
    "search.terminator": True,
    "search.margin": 0.25,
    "search.patience": 1,
    "search.heartbeat": 5,
    "search.retries": 1,
}
"""Another valid value for every key of a recipe."""

OF_TABLES = ("file", "image", "split", "ratio", "group", "missing", "delimiter", "own_batches")
"""Keys of `[data]` that tables alone know."""

BESIDE = {
    **{f"data.{key}": {"data.name": "table"} for key in OF_TABLES},
    "data.tasks": {"data.name": "nyuv2"},
    "train.ema_warmup": {"train.ema": 0.9},
    "data.factory": {"data.name": "factory", "data.factory": "package.module:build"},
    "data.args": {"data.name": "factory", "data.factory": "package.module:build"},
    "head.args": {"head.kind": "module:head"},
    "head.neck": {"necks.wide": {}},
    "necks.wide": {"head.neck": "wide", "necks.wide": {}},
    "probe.confidence": {"probe.seeds": 2},
    "split.max_params": {"split.k": None},
    "split.max_groups": {"split.grouping": "affinity"},
    "compare.rules": {"compare.rules": ["mass"], "compare.ks": [3]},
    "compare.ks": {"compare.rules": ["mass"], "compare.ks": [3]},
    "compare.budgets": {"compare.rules": ["mass"], "compare.budgets": ["1.2x"]},
}
"""What such a value needs, set before and after alike."""

PLACES = {"data.root", "data.file", "data.download", "data.workers", "data.cache"}
"""Where files are and how they are loaded, not what they hold."""

OTHER_DATA = {
    *(
        "data.name",
        "data.tasks",
        "data.factory",
        "data.args",
        "data.image_size",
        "data.channels",
        "data.resize",
    ),
    *(f"data.{key}" for key in OF_TABLES),
    *("data.crop", "data.interpolation", "data.statistics", "data.augment"),
}
"""Keys that data of this name does not know."""

TABLES = {"tasks": ["left"], "necks": ["wide"]}
"""Sections whose keys are names, with those that are tried here."""

NETWORK = ("data", "tasks", "backbone", "head", "necks", "train")
TRAINED = {path for path in OTHER if path.split(".")[0] in NETWORK}
TRAINED = TRAINED - PLACES | {"seed", "split.init"}
"""What a training of a split depends on."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder in which there are weights, to be named by a recipe."""
    monkeypatch.chdir(tmp_path)
    Path("donor.safetensors").write_bytes(b"weights")
    return tmp_path


def recipe_with(**values):
    """The tiny recipe with keys set, `section.key` or `key`."""
    raw = tomllib.loads(TINY)
    for path, value in values.items():
        *sections, key = path.split(".", 1)
        target = raw.setdefault(sections[0], {}) if sections else raw
        target[key] = value
    return parse_recipe(raw)


def pair(path):
    """Two recipes that differ in one key."""
    before = BESIDE.get(path, {})
    return recipe_with(**before), recipe_with(**(before | {path: OTHER[path]}))


def training_of(recipe, **changes):
    """Identity of the training of the recipe's split network, whatever the data is called."""
    values = {
        "fingerprint": "files",
        "tasks": ({"kind": "classes", "name": "left", "n_classes": 2},),
        "train": recipe.train,
        "backbone": recipe.backbone,
        "split": "digest",
        "seed": recipe.seed,
        "measured": None,
        "start": None,
    }
    return identity.of_training(recipe, **(values | changes))


def probe_of(recipe):
    run = Run(recipe, Path("out"))
    return probe_training(run, recipe.seed).identity(run)


def test_every_key_of_a_recipe_has_another_value_here():
    """A key that is added to recipes must be judged: does a result depend on it?"""
    paths = {"seed"}
    for name, field in Recipe.model_fields.items():
        if name != "seed":
            keys = TABLES.get(name) or field.annotation.model_fields
            paths |= {f"{name}.{key}" for key in keys}
    assert set(OTHER) == paths
    for path in OTHER:
        one, other = pair(path)
        assert one != other, path


@pytest.mark.parametrize("path", OTHER)
def test_a_training_depends_on_its_own_keys_and_no_others(path):
    one, other = (training_of(recipe) for recipe in pair(path))
    assert (one != other) is (path in TRAINED)


def test_of_several_changes_no_two_make_the_same_training():
    found = [training_of(pair(path)[1]) for path in sorted(TRAINED)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other files"},
        {"tasks": ({"kind": "classes", "name": "b", "n_classes": 2},)},
        {"tasks": ({"kind": "classes", "name": "a", "n_classes": 3},)},
        {"tasks": (Classes("a", 2, weight=2.0).spec(),)},
        {"tasks": (Classes("a", 2).spec(), Classes("b", 2).spec())},
        {"split": "another"},
        {"split": None},
        {"seed": 6},
        {"seed": None},
        {"measured": "scores/1"},
        {"start": "0123"},
        {"copies": CopyConfig(kind="low-rank")},
        {"copies": CopyConfig(kind="gates")},
    ],
    ids=str,
)
def test_what_is_no_key_counts_too(change):
    recipe = recipe_with()
    assert training_of(recipe, **change) != training_of(recipe)


def test_the_order_of_the_tasks_counts():
    """Methods that project one task after another depend on it."""
    tasks = Classes("a", 2).spec(), Classes("b", 2).spec()
    recipe = recipe_with()
    assert training_of(recipe, tasks=tasks) != training_of(recipe, tasks=tasks[::-1])


def test_copies_are_made_only_where_there_is_a_split():
    one, other = pair("split.init")
    assert training_of(one, split=None) == training_of(other, split=None)


@pytest.mark.parametrize("path", [path for path in OTHER if path not in OTHER_DATA])
def test_a_probe_does_not_depend_on_what_comes_after_it(path):
    one, other = (probe_of(recipe) for recipe in pair(path))
    own = {"probe.epochs", "probe.every", "probe.tasks_per_step", "probe.sketch", "probe.method"}
    replaced = {"train.method", "train.epochs"}
    replaced |= {"train.measure_every", "train.measure_tasks", "train.measure_sketch"}
    replaced |= {"train.ema", "train.ema_warmup", "train.patience", "train.select"}
    replaced |= {"train.report_epochs"}
    expected = path in own | TRAINED - replaced - {"split.init"}
    assert (one != other) is expected


STUDIED = TRAINED | {path for path in OTHER if path.startswith(("split.", "search."))}
ENDS = {"search.trials", "search.terminator", "search.margin"}
STUDIED = STUDIED - ENDS - {"search.heartbeat", "search.retries"}
STUDIED |= {"probe.window", "compare.delta_m"}


@pytest.mark.parametrize("path", OTHER)
def test_a_study_depends_on_what_all_its_trials_share(path):
    """How many there are to be and what is compared in the end are left open."""
    one, other = (
        identity.of_study(recipe, training_of(recipe, split=None), "scores")
        for recipe in pair(path)
    )
    assert one["scores"] == other["scores"]
    assert (one["recipe"] != other["recipe"]) is (path in STUDIED)


def test_a_study_depends_on_its_scores():
    recipe = recipe_with()
    one, other = (identity.of_study(recipe, "training", scores) for scores in ("a", "b"))
    assert one["recipe"] == other["recipe"]
    assert one["scores"] != other["scores"]


@pytest.mark.parametrize("path", [path for path in OTHER if path != "probe.seeds"])
def test_a_run_says_which_section_differs(path):
    one, other = (identity.of_run(recipe) for recipe in pair(path))
    differing = {section for section, digest in one.items() if other[section] != digest}
    is_open = path in PLACES | ENDS or path.startswith("compare.")
    assert differing == (set() if is_open else {path.partition(".")[0]})


def test_a_run_may_get_more_seeds_of_its_probe():
    one, other = pair("probe.seeds")
    assert identity.of_run(one) == identity.of_run(other)


def test_keys_in_another_order_are_the_same():
    args = [("channels", [4, 4, 8, 8]), ("stem_width", 8), ("act_layer", "gelu")]
    found = {
        training_of(recipe_with(**{"backbone.args": dict(order)}))
        for order in itertools.permutations(args)
    }
    assert len(found) == 1
    raw = tomllib.loads(TINY)
    backwards = {name: raw[name] for name in reversed(raw)}
    backwards["train"] = dict(reversed(raw["train"].items()))
    assert identity.of_run(parse_recipe(backwards)) == identity.of_run(parse_recipe(raw))


def test_a_default_that_is_written_down_is_the_default():
    recipe = recipe_with()
    said = {f"train.{name}": value for name, value in recipe.train.model_dump(mode="json").items()}
    said |= {f"split.{name}": v for name, v in recipe.split.model_dump(mode="json").items()}
    spelt = recipe_with(**said)
    assert training_of(spelt) == training_of(recipe)
    assert identity.of_run(spelt) == identity.of_run(recipe)
    raw = tomllib.loads(TINY)
    del raw["split"]["k"]
    assert identity.of_run(parse_recipe(raw)) == identity.of_run(recipe), "k = 3 is the default"


@pytest.mark.parametrize(
    "section", [name for name in list(Recipe.model_fields)[1:] if name not in TABLES]
)
def test_a_key_that_a_later_version_adds_changes_nothing_at_its_default(section):
    """Else every cached training, study and run folder would be lost to an update."""
    recipe = recipe_with()
    known = getattr(recipe, section)

    class Later(type(known)):
        invented: int = 3

    values = known.model_dump(mode="json")

    def with_section(**more):
        return recipe.model_copy(
            update={section: Later.model_validate(values | more, strict=False)}
        )

    def identities(recipe):
        training = training_of(recipe)
        return training, identity.of_study(recipe, training, ""), identity.of_run(recipe)

    same, other = with_section(), with_section(invented=4)
    assert identities(same) == identities(recipe)
    is_open = section == "compare"  # of what is trained already, nothing depends on it
    assert (identities(other) == identities(recipe)) is is_open, "what is set counts"


def test_a_later_field_of_a_task_is_left_out_at_its_default():
    assert Classes("a", 2).spec() == {"kind": "classes", "name": "a", "n_classes": 2}


# Files


def test_files_count_by_their_content_wherever_they_are(folder):
    (folder / "moved").mkdir()
    moved = folder / "moved/other name.safetensors"
    moved.write_bytes(b"weights")
    link = folder / "link.safetensors"
    link.symlink_to("moved/other name.safetensors")
    paths = ["donor.safetensors", str(folder / "donor.safetensors"), str(moved), str(link)]
    paths.append("moved/../donor.safetensors")
    found = {training_of(recipe_with(**{"backbone.weights": path})) for path in paths}
    assert len(found) == 1
    assert found != {training_of(recipe_with())}, "that it begins with weights counts"
    recipe = recipe_with(**{"backbone.weights": str(moved)})
    assert "moved" not in json.dumps(identity.of_backbone(recipe.backbone))
    runs = [identity.of_run(recipe_with(**{"backbone.weights": path})) for path in paths]
    assert all(each == runs[0] for each in runs)


@pytest.mark.parametrize("content", [b"other", b"weighty", b"weights!", b""])
def test_another_content_under_the_same_path_is_another_training(content):
    """Shorter, as long, longer."""
    recipe = recipe_with(**{"backbone.weights": "donor.safetensors"})
    before = training_of(recipe), identity.of_run(recipe)["backbone"]
    Path("donor.safetensors").write_bytes(content)
    os.utime("donor.safetensors", ns=(1, 1))
    after = training_of(recipe), identity.of_run(recipe)["backbone"]
    assert before[0] != after[0]
    assert before[1] != after[1]
    Path("donor.safetensors").write_bytes(b"weights")
    assert training_of(recipe) == before[0]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_counts_by_its_content_even_if_its_times_do_not_change(tmp_path, replaced):
    """As long, and as old: copied with its times, or within the clock's grain."""
    path = tmp_path / "weights"
    seen = []
    for content in (b"aaaa", b"bbbb", b"cccc", b"aaaa"):
        target = tmp_path / "new" if replaced else path
        target.write_bytes(content)
        os.utime(target, ns=(5, 5))
        target.replace(path)
        seen.append(identity.content(path))
        assert identity.content(path) == seen[-1]
    assert len(set(seen)) == 3
    assert seen[0] == seen[3]


def test_a_file_that_rests_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"aaaa")
    monkeypatch.setattr(identity, "FRESH", -1)
    first = identity.content(path)
    monkeypatch.setattr(identity, "_read", lambda path: "read again")
    assert identity.content(path) == first


def test_the_folder_of_a_local_model_counts_by_its_files(folder):
    def write(name, **files):
        (folder / name).mkdir()
        for file, text in files.items():
            (folder / name / file).write_text(text)
        return training_of(recipe_with(**{"backbone.name": f"local-dir:{folder / name}"}))

    first = write("first", config="{}", model="1")
    assert write("second", model="1", config="{}") == first
    assert write("third", config="{}", model="2") != first
    assert write("fourth", config="{}", other="1") != first
    assert write("fifth", config="{}") != first


@pytest.mark.parametrize("path", ["absent.safetensors", "absent/model.safetensors"])
def test_weights_that_are_not_there_are_one_line(path):
    with pytest.raises(ArtefactError, match=r"must be readable, .*absent.* is not \(No such file"):
        training_of(recipe_with(**{"backbone.weights": path}))


def test_other_weights_are_trained_anew_and_moved_ones_are_not(invoke, folder):
    """From the command line: one training for each content, whatever the file is called."""
    Path("tiny.toml").write_text(TINY)

    def write(name, seed):
        torch.manual_seed(seed)
        donor = timm.create_model("resnet18", channels=[4, 4, 8, 8], num_classes=3, in_chans=1)
        save_file(donor.state_dict(), name)

    def train(weights, *more):
        code, _, error = invoke(
            "train", "tiny.toml", "--out", "out", "--set", f"backbone.weights={weights}",
            "--set", "train.epochs=1", *more,
        )  # fmt: skip
        return code, error, {path.parent.name for path in Path("out").glob("trainings/*/model")}

    write("a.safetensors", 0)
    code, error, first = train("a.safetensors")
    assert (code, len(first)) == (0, 1), error
    Path("a.safetensors").rename("b.safetensors")
    code, error, second = train("b.safetensors", "--resume")
    assert (code, second) == (0, first), error
    write("b.safetensors", 1)
    code, error, third = train("b.safetensors", "--resume")
    assert (code, third) == (2, first)
    assert "found another in out/recipe.json ([backbone] differ)" in error


def test_data_may_be_moved_and_other_data_are_trained_anew(invoke, folder):
    """From the command line: what was trained on files is found again wherever these are."""
    Path("tiny.toml").write_text(TINY)
    write_item_set(folder / "here/mnist", n=40)
    shutil.copytree("here", "there")
    write_item_set(folder / "more/mnist", n=60)

    def train(root, out, *more):
        code, _, error = invoke(
            "train", "tiny.toml", "--out", out, "--data-root", root, "--set", "train.epochs=1",
            "--set", "data.name=multi-mnist", "--set", "data.canvas=36", *more,
        )  # fmt: skip
        assert code == 0, error
        return {
            path.parent.name: path.stat().st_mtime_ns
            for path in Path(out).glob("trainings/*/result.json")
        }

    first = train("here", "out")
    assert len(first) == 1
    shutil.rmtree("here")
    assert train("there", "out", "--resume") == first, "nothing is trained anew"
    assert train("there", "other").keys() == first.keys()
    assert train("more", "out", "--resume").keys() > first.keys()


# Trainings


@pytest.fixture
def run():
    return Run(recipe_with(), Path("out"))


def plain(run, **changes):
    names, recipe = run.schema.names, run.recipe
    return replace(Training(names, None, recipe.train, recipe.backbone, 0), **changes)


def test_what_a_training_is_called_and_whether_it_is_tested_do_not_count(run):
    named = plain(run, label="joint, unsplit", test=False)
    assert named.identity(run) == plain(run).identity(run)
    assert named == plain(run)
    assert named.directory(run) == Path("out/trainings") / named.identity(run)


def test_where_and_on_what_it_runs_does_not_count(run):
    there = replace(run, out=Path("there"), workers=7)
    assert plain(run).identity(there) == plain(run).identity(run)


def test_the_layers_of_a_split_count_and_not_how_they_were_chosen(run):
    names = run.schema.names
    split = Split.private(["conv1", "fc"], names)
    told = Split.private(["fc", "conv1"], names, chosen={"rule": "mass"}, provenance={"torch": "3"})
    other = Split.private(["conv1", "bn1"], names)
    found = [plain(run, split=each).identity(run) for each in (split, told, other, None)]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_what_a_training_starts_from_counts_with_all_it_depends_on(run):
    shared = plain(run)
    started = plain(run, start=shared)
    again = plain(run, start=replace(shared, label="other", test=False))
    other = plain(run, start=replace(shared, seed=1))
    found = [each.identity(run) for each in (shared, started, again, other)]
    assert found[1] == found[2]
    assert len(set(found)) == 3


def test_of_one_training_all_seeds_have_one_identity_without_it(run):
    first, second = plain(run), plain(run, seed=1)
    assert first.identity(run) != second.identity(run)
    assert first.identity(run, with_seed=False) == second.identity(run, with_seed=False)


def test_options_of_the_recipes_method_do_not_count_where_another_method_trains():
    tuned = recipe_with(**{"train.method": "gradvac", "train.options": {"beta": 0.9}})
    usual = recipe_with(**{"train.method": "gradvac"})
    runs = [Run(recipe, Path("out")) for recipe in (tuned, usual)]

    def identities(method):
        return {
            plain(run, train=run.recipe.train.model_copy(update={"method": method})).identity(run)
            for run in runs
        }

    assert len(identities("pcgrad")) == 1
    assert len(identities("gradvac")) == 2


def test_identities_are_digests_of_plain_settings():
    """So that trainings are found again by another process and by a later version."""
    train = TrainConfig(epochs=2, batch_size=32, lr=0.05)
    assert identity.settings(train) == {"epochs": 2, "batch_size": 32, "lr": 0.05}
    recipe = recipe_with()
    known = {
        "seed": 0,
        "head": {"activation": "relu"},
        "split": {"k": 3, "rule": "count"},
        "search": {},
    }
    found = identity.of_run(recipe)
    for section, values in known.items():
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        assert found[section] == hashlib.sha256(text.encode()).hexdigest()[:16]
