"""The trials: the laws that their data obey, their recipes, and the runner that records them."""

import gzip
import itertools
import json
import shlex
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recon_search.data.factory import call_factory
from recon_search.data.source import PARTS
from recon_search.errors import RecipeError
from recon_search.imports import import_callable
from recon_search.recipe import DataConfig, load_recipe
from recon_search.stages.data import Looked, examine
from recon_search.stages.findings import RELIABLE, advise, overlaps
from tests.benchmarks import trials
from tests.benchmarks.evidence import RESULTS
from tests.benchmarks.summaries import gate_table, overlap_table
from tests.command import call, parse

SIZES = {"validation": 12, "test": 20}
OVERLAPS = (1.0, 0.4, 0.3, 0.1, 0.0)
N_ITEMS = {"train": 120, "t10k": 60}


def item(prefix, index):
    """The grey value of an item, by which it is known; and its class."""
    return 1 + index + (0 if prefix == "train" else N_ITEMS["train"]), index * 7 % 10


CLASS_OF = dict(item(prefix, index) for prefix, n in N_ITEMS.items() for index in range(n))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """IDX files of items that are plain squares, each of a grey of its own."""
    folder = tmp_path_factory.mktemp("idx")
    for name, (prefix, n) in itertools.product(("mnist", "fashion-mnist"), N_ITEMS.items()):
        greys, labels = np.array([item(prefix, index) for index in range(n)], dtype=np.uint8).T
        images = greys[:, None, None] * np.ones((1, 28, 28), dtype=np.uint8)
        (folder / name).mkdir(exist_ok=True)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(
                f">{array.ndim}I", *array.shape
            )
            path = folder / name / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(head + array.tobytes()))
    return str(folder)


def build(function, root=None, seed=0, **arguments):
    """Call a factory as a recipe does."""
    path = f"{trials.FACTORY}:{function}"
    config = DataConfig(name="factory", factory=path, root=root, seed=seed, args=arguments)
    return call_factory(config)


def build_small(function, root, **changes):
    """Data of a function, small."""
    own = {"relabelled": {"train": 40, "canvas": 12}, "four": {"canvas": 28}}
    root = None if function == "relabelled" else root
    return build(function, root, **{"train": 60, **SIZES, **own.get(function, {}), **changes})


EVERY = ("relabelled", "four", "late", "thinned")


@pytest.mark.parametrize("function", EVERY)
def test_one_seed_gives_the_same_bytes_and_another_gives_others(function, root):
    one, same, other = (build_small(function, root, seed=seed) for seed in (3, 3, 4))
    for part in PARTS:
        assert torch.equal(one.parts[part].images, same.parts[part].images)
        assert one.parts[part].classes == same.parts[part].classes
        assert not torch.equal(one.parts[part].images, other.parts[part].images)
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize("function", EVERY)
def test_data_have_the_sizes_asked_for_and_are_as_a_factorys_must_be(function, root):
    found = build_small(function, root)
    found.check()
    assert {part: len(found.parts[part]) for part in ("validation", "test")} == SIZES
    n_classes = {task.name: task.n_classes for task in found.tasks}
    for part, index in itertools.product(PARTS, (0, 5)):
        image, targets = found.parts[part][index]
        assert image.dtype == torch.uint8
        assert targets == found.parts[part].targets(index)
        assert targets.keys() == n_classes.keys()
        assert all(label is None or 0 <= label < n_classes[task] for task, label in targets.items())


def greys_at(found, corners):
    """By part, the items that stand in corners."""
    return {
        part: [found.parts[part].images[:, 0, down, right].tolist() for down, right in corners]
        for part in PARTS
    }


def test_four_items_stand_in_four_corners_and_are_of_their_classes(root):
    found = build_small("four", root)
    greys = greys_at(found, [(0, 0), (-1, -1), (0, -1), (-1, 0)])
    for part, (task, own) in itertools.product(PARTS, enumerate(found.tasks)):
        expected = [CLASS_OF[grey] for grey in greys[part][task]]
        assert found.parts[part].classes[own.name] == expected
    assert len({tuple(each) for each in greys["train"]}) == 4, "no two corners hold the same"


@pytest.mark.parametrize("function", ["four", "late", "thinned"])
def test_parts_hold_different_items(function, root):
    corners = [(0, 0)] if function == "late" else [(0, 0), (-1, -1)]
    for place in range(len(corners)):
        items = {
            part: set(each[place])
            for part, each in greys_at(build_small(function, root), corners).items()
        }
        assert all(items.values())
        assert not any(items[a] & items[b] for a, b in itertools.combinations(PARTS, 2))


def test_the_same_task_twice_has_the_same_labels():
    found = build_small("relabelled", None)
    for part in found.parts.values():
        assert part.classes["left"] == part.classes["twice"]
    for part in build_small("relabelled", None, second="odd").parts.values():
        assert part.classes["odd"] == [digit % 2 for digit in part.classes["left"]]


def test_groupings_contradict_each_other():
    """Any two of the ten classes are a pair in one round of nine, and in no other."""
    rounds = [import_callable(f"{trials.FACTORY}:pairing", "a round")(n) for n in range(9)]
    met = []
    for pairs in rounds:
        assert sorted(pairs) == sorted([*range(5), *range(5)])
        met += [(a, b) for a, b in itertools.combinations(range(10), 2) if pairs[a] == pairs[b]]
    assert sorted(met) == list(itertools.combinations(range(10), 2))


def test_late_tasks_group_the_classes_of_what_is_shown(root):
    found = build_small("late", root, n_tasks=4)
    pairing = import_callable(f"{trials.FACTORY}:pairing", "a round")
    for part, (number, task) in itertools.product(PARTS, enumerate(found.tasks)):
        classes = [CLASS_OF[grey] for grey in greys_at(found, [(0, 0)])[part][0]]
        assert found.parts[part].classes[task.name] == [pairing(number)[own] for own in classes]


@pytest.fixture(scope="module")
def thinned(root):
    """By overlap, data whose labels are thinned."""
    return {share: build("thinned", root, overlap=share, train=2002, **SIZES) for share in OVERLAPS}


def labelled(found):
    """By task, the training samples that have its label."""
    own = found.parts["train"].classes
    return {
        task: frozenset(row for row, label in enumerate(labels) if label is not None)
        for task, labels in own.items()
    }


@pytest.mark.parametrize("share", OVERLAPS)
def test_labels_overlap_as_asked_and_are_as_many_at_every_overlap(thinned, share):
    found = thinned[share]
    known = labelled(found)
    (pair,) = overlaps(known)
    assert pair.share == share
    assert {task: len(rows) for task, rows in known.items()} == {"digit": 1001, "fashion": 1001}
    assert known["digit"] == labelled(thinned[1.0])["digit"]
    assert torch.equal(found.parts["train"].images, thinned[1.0].parts["train"].images)
    for part in ("validation", "test"):
        assert found.parts[part].classes == thinned[1.0].parts[part].classes
        assert all(None not in labels for labels in found.parts[part].classes.values())


def test_labels_that_are_left_are_those_that_were(thinned):
    whole = {task: {} for task in ("digit", "fashion")}
    for found, (task, own) in itertools.product(thinned.values(), whole.items()):
        for row in labelled(found)[task]:
            label = found.parts["train"].classes[task][row]
            assert own.setdefault(row, label) == label
    assert all(len(own) > 1001 for own in (whole["fashion"],))


@pytest.mark.parametrize("share", [1.0, 0.4, 0.3, 0.0])
def test_the_tool_warns_where_the_overlap_is_too_small(root, share):
    sets = [f"data.root={json.dumps(root)}", f"data.args.overlap={share}"]
    sets += [f"data.args.{name}={n}" for name, n in {"train": 2002, **SIZES}.items()]
    found = examine(Looked(load_recipe("thinned", sets)))
    assert found.overlaps[0].share == share
    warned = any("conflict between tasks" in line for line in advise(found))
    assert warned == (share < RELIABLE)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("relabelled", {"second": "even"}, "`second` must be twice or odd, got 'even'"),
        ("late", {"n_tasks": 10}, "`n_tasks` must be between 2 and 9, got 10"),
        ("late", {"train": 500}, "train part must hold at most 100 images, got 500"),
        ("thinned", {"overlap": 40}, "`overlap` must be a share between 0 and 1, got 40"),
    ],
)
def test_what_cannot_be_made_is_refused(root, function, arguments, message):
    with pytest.raises(Exception, match=message):
        build_small(function, root, **arguments)


@pytest.mark.parametrize("name", trials.TRIALS)
def test_every_trial_is_valid_and_its_command_is_the_trial(name, monkeypatch):
    monkeypatch.chdir(trials.ROOT)
    trial = trials.TRIALS[name]
    recipe = trial.load([])
    words = shlex.split(trial.command([]))
    assert words[0] == "recon-search"
    path, values = parse(words[1:])
    assert path == ("run",)
    assert load_recipe(values["recipe_path"], values["overrides"]) == recipe
    assert (values["data_root"] is not None) == trial.needs_root
    if recipe.data.factory is not None:
        takes = import_callable(recipe.data.factory, "data.factory").__code__.co_varnames
        assert ("root" in takes) == trial.needs_root
        assert set(recipe.data.args) <= set(takes)


def test_every_trial_differs_from_every_other():
    commands = [trial.command([]) for trial in trials.TRIALS.values()]
    assert len(set(commands)) == len(commands)
    with pytest.raises(RecipeError, match="no key of a recipe"):
        trials.TRIALS["twice"].load(["split.kk=3"])


TINY = (
    *("train.epochs=1", "train.warmup_epochs=0", "train.measure_every=0", "train.batch_size=16"),
    *("probe.epochs=1", "probe.every=1", "probe.seeds=2", "compare.seeds=1", "probe.window=[0, 1]"),
    *("compare.controls=[]", "data.args.canvas=16", "backbone.name=resnet10t"),
    *("data.args.train=48", "data.args.validation=16", "data.args.test=16"),
    'backbone.args={ channels = [4, 4, 8, 8], stem_width = 4, stem_type = "deep" }',
)


def test_a_trial_is_begun_again_until_it_is_recorded_and_then_left_alone(tmp_path, monkeypatch):
    ran = []

    def run(words, cwd, check):
        assert words[:3] == [sys.executable, "-m", "recon_search"]
        ran.append(words)
        return SimpleNamespace(returncode=call(*words[3:], cwd=cwd).code if len(ran) > 1 else 137)

    def start():
        sets = [word for each in TINY for word in ("--set", each)]
        arguments = ["trials", "--out", str(tmp_path), "--only", "twice", *sets]
        monkeypatch.setattr(sys, "argv", arguments)
        trials.main()

    monkeypatch.setattr(trials, "subprocess", SimpleNamespace(run=run))
    path = tmp_path / "results/twice.json"
    with pytest.raises(SystemExit, match="Not recorded: twice"):
        start()
    assert not path.exists()
    start()
    found = json.loads(path.read_text())
    assert found["trainings"] == len(list(tmp_path.glob("trainings/*/result.json"))) == 6
    assert found["seeds"] == [0]
    words = shlex.split(found["command"])[1:]
    assert ran[0] == ran[1]
    assert ran[1][3 : 3 + len(words)] == words, "what was run is what is published"
    assert found["probe"]["gate"].keys() == {"k", "share", "interval", "advice"}
    assert found["probe"]["seeds"] == 2
    assert found["overlaps"] == []
    start()
    assert len(ran) == 2, "what is recorded is not run again"


def result_of(advice, interval=(0.6, 0.8)):
    """A result of record whose split helps, by +7.69 [+0.46, +14.91]."""
    found = json.loads((RESULTS / "quickstart.json").read_text())
    gate = {"k": 3, "share": 0.7, "interval": interval, "advice": advice}
    probe = {"k": 3, "gate": gate, "reliability": {"tau": 0.5, "stability": 0.75}}
    overlap = {"first": "left", "second": "right", "both": 30, "either": 100}
    return {**found, "probe": probe, "overlaps": [overlap]}


def test_the_gates_table_counts_where_it_is_right():
    advice = {"a": "split", "b": "do not split", "c": "cannot tell"}
    table = gate_table({name: result_of(own) for name, own in advice.items()})
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[2] == ["a", "0.70 (0.60 to 0.80)", "split", "+7.69 [+0.46, +14.91]", "yes", "yes"]
    assert [line[-1] for line in lines[2:5]] == ["yes", "no", "not told"]
    assert "Right on 1 of the 2 sets on which both are told, of 3." in table


def test_the_overlaps_table_has_a_line_for_each():
    table = overlap_table({"a": result_of("split"), "b": {**result_of("split"), "overlaps": []}})
    first, second = table.splitlines()[2:4]
    assert first.startswith("| a | 30% | 0.50 | 0.75 of 3 | +7.69 [+0.46, +14.91] | +2.44 [+1.00,")
    assert second.startswith("| b | 100% |")
    assert "--only a b`" in table
