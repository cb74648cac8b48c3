"""Split while training: one training in two parts, cut anywhere, and what is made of it."""

import json
import tomllib

import pytest

from recon_search.artefact import digest
from recon_search.conflict.rules import rank
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ArtefactError, RecipeError
from recon_search.graph.split import Split
from recon_search.recipe import parse_recipe
from recon_search.runs.comparison import Comparison
from recon_search.runs.fitting import STATE
from recon_search.runs.run import Run
from recon_search.runs.trainer import train
from recon_search.search.space import check_space
from recon_search.stages.compare import plan
from recon_search.stages.during import check_parts, first_part, last_part, measure, split_of
from recon_search.stages.plan import make_plan
from recon_search.stages.split import choose_split, reading_of
from recon_search.stages.study import check_study
from tests.stages.recipes import TINY
from tests.stages.scores import noisy_scores
from tests.stages.test_ablate import SMALL

MORE = SMALL.replace("train = 32", "train = 64").replace("epochs = 1\nbatch", "epochs = 3\nbatch")


def make_recipe(text=MORE, **sections):
    raw = tomllib.loads(text)
    for section, values in sections.items():
        raw[section] = {**raw.get(section, {}), **values}
    return parse_recipe(raw)


def bytes_of(training, run):
    """What a training has left: its model, result and history, but for the time it took."""
    folder = training.directory(run)
    result = json.loads((folder / "result.json").read_text())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for each in (result, *records):
        each.pop("seconds")
        each.pop("digest", None)
    return (folder / "model/model.safetensors").read_bytes(), result, records


def in_two_parts(run):
    """Train both parts; what the second has left."""
    first = first_part(run, 0, "joint")
    measure(run, [first])
    second = last_part(first, split_of(first, run), run, "split")
    result = train(second, run)
    return second, result


class Cut(Exception):  # noqa: N818 - no error
    """Here somebody pulls the plug."""


def cut_at(step):
    def report(progress):
        if progress.step >= step:
            raise Cut

    return report


@pytest.mark.parametrize("at", [2, [1, 2]], ids=["at once", "in turn"])
def test_it_goes_on_as_if_nothing_had_happened_wherever_it_was_cut(tmp_path, at):
    """Epochs have two steps, and the network is split after the second of three, or the first."""
    recipe = make_recipe(split={"at": at}, probe={"window": [0.0, 1.0]})
    whole, again = Run(recipe, tmp_path / "whole"), Run(recipe, tmp_path / "again")
    second, result = in_two_parts(whole)
    assert len(second.split.layers) == 3
    assert (result.epochs, result.test is not None) == (3, True)
    first = second.start.start or second.start
    assert not (second.start.directory(whole) / "checkpoint.safetensors").exists()
    for training, step in ((second, 2), (second, 4), (second, 6)):  # of each part the last
        with pytest.raises(Cut):
            train(training, again, cut_at(step))
    assert (second.start.directory(again) / STATE).is_file()
    assert (second.directory(again) / "checkpoint.safetensors").is_file()
    train(second, again)
    assert bytes_of(second, again) == bytes_of(second, whole)
    scores = [
        ConflictScores.load(first.directory(r) / "scores.safetensors") for r in (whole, again)
    ]
    assert scores[0].digest == scores[1].digest

    with pytest.raises(Cut):  # once more, from the state that is left
        train(last_part(first, Split.private(["fc"], second.tasks), again, ""), again, cut_at(6))
    (first.directory(again) / STATE).write_bytes(b"damaged")
    other = last_part(first, Split.private(["conv1"], second.tasks), again, "")
    with pytest.raises(ArtefactError, match=r"Delete .* to train it anew\.$"):
        train(other, again)


def test_with_nothing_split_it_is_joint_training(tmp_path):
    """Measured alike, which the plain training is told here."""
    recipe = make_recipe(train={"measure_every": 1}, split={"k": 0, "at": 1})
    run = Run(recipe, tmp_path)
    second, _ = in_two_parts(run)
    assert second.split == Split(second.tasks, {})
    joint = next(
        line for line in plan(run, second.split, noisy_scores(recipe)) if line.role == "joint"
    )
    train(joint.trainings[0], run)
    assert bytes_of(second, run) == bytes_of(joint.trainings[0], run)


def test_identities_of_parts_are_their_own_and_others_stay(tmp_path):
    run = Run(make_recipe(split={"at": 1}), tmp_path)
    later = Run(make_recipe(split={"at": 2}), tmp_path)
    first = first_part(run, 0, "joint")
    split = Split.private(["fc"], first.tasks)
    names = [
        first.identity(run),
        first_part(later, 0, "joint").identity(later),
        last_part(first, split, run, "").identity(run),
        last_part(first, Split.private(["bn1"], first.tasks), run, "").identity(run),
    ]
    assert len(set(names)) == 4
    plain = Run(make_recipe(TINY), tmp_path)
    lines = plan(plain, split, noisy_scores(plain.recipe))
    known = digest([training.identity(plain) for line in lines for training in line.trainings])
    assert known == "9a31f593a33ff524", "trainings of earlier versions are taken as they are"


def test_layers_are_split_in_turn_by_what_was_measured_since(tmp_path):
    recipe = make_recipe(split={"at": [1, 2], "k": 5}, probe={"window": [0.0, 1.0]})
    run = Run(recipe, tmp_path)
    last, _ = in_two_parts(run)
    second = last.start
    first = second.start
    assert (first.split, first.until, second.until, last.until) == (None, 1, 2, None)
    for part, own, k in ((first, second, 3), (second, last, 5)):
        scores = ConflictScores.load(part.directory(run) / "scores.safetensors")
        assert scores.steps == 2, "each part measures its own two steps"
        known = [] if part.split is None else list(part.split.chosen["ranking"])
        order = [name for name, _ in rank(scores, recipe.split.rule, reading_of(recipe))]
        wanted = (known + [name for name in order if name not in known])[:k]
        assert own.split.chosen["ranking"][:k] == wanted
        assert set(own.split.layers) == set(wanted)
    assert Split.load(last.directory(run) / "model/split.json") == last.split


def test_one_epoch_of_several_is_that_epoch(tmp_path):
    once, several = (Run(make_recipe(split={"at": at}), tmp_path) for at in (2, [2]))
    firsts = [first_part(run, 0, "joint") for run in (once, several)]
    split = Split.private(["fc"], firsts[0].tasks)
    for end in (lambda part, run: part, lambda part, run: last_part(part, split, run, "")):
        found = [end(part, run) for part, run in zip(firsts, (once, several), strict=True)]
        assert found[0].identity(once) == found[1].identity(several)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"split": {"when": "during", "at": [1, 1]}}, r"before, between and after"),
        ({"split": {"when": "during", "at": [2, 1]}}, r"before, between and after"),
        ({"split": {"when": "during", "at": [1, 3]}}, r"`split\.at` must leave an epoch"),
        ({"split": {"at": [1, 2], "k": 1}}, r"needs a `split\.k` of 2 or more"),
        ({"split": {"at": [1, 2], "max_flops": "1.5x"}}, r"no limit beside it"),
        ({"split": {"at": [1, 2], "grouping": "affinity"}}, r'`split\.grouping` "private"'),
        ({"split": {"at": []}}, r"split\.at"),
        ({"split": {"when": "during", "at": 3}}, r"`split\.at` must leave an epoch"),
        ({"compare": {"during": True}, "split": {"at": 4}}, r"`compare\.during`\), got 4"),
        ({"split": {"when": "during", "init": "fresh"}}, "forget what was trained"),
        ({"compare": {"during": True}, "split": {"init": "fresh"}}, "forget what was trained"),
        ({"split": {"when": "during"}, "compare": {"during": True}}, "Drop one"),
        ({"split": {"when": "during"}, "train": {"patience": 2}}, r"`train\.patience` may end"),
        ({"split": {"at": 0}}, r"split\.at"),
        ({"split": {"at": 1.5}}, r"split\.at"),
    ],
)
def test_what_does_not_go_together_is_said_by_the_recipe(sections, said):
    with pytest.raises(RecipeError, match=said):
        make_recipe(**sections)


@pytest.mark.parametrize(
    ("at", "epochs", "words"),
    [
        (1, (1,), "epoch 1"),
        (2, (2,), "epoch 2"),
        (0.5, (2,), "epoch 2"),
        (0.1, (1,), "epoch 1"),
        (0.67, (2,), "epoch 2"),
        ([1, 0.67], (1, 2), "epochs 1 and 2"),
        ([1, 2, 3], (1, 2, 3), "epochs 1, 2 and 3"),
    ],
)
def test_the_epoch_is_a_number_or_a_share(at, epochs, words):
    recipe = make_recipe(split={"at": at})
    assert (recipe.epochs_of_split, recipe.moments_of_split) == (epochs, words)


def test_a_first_part_must_measure_in_its_window(tmp_path):
    recipe = make_recipe(split={"when": "during", "at": 1}, probe={"window": [0.9, 1.0]})
    with pytest.raises(RecipeError, match=r"gives none of its 2\. Lower it, or raise split\.at"):
        check_parts(Run(recipe, tmp_path))


def test_each_part_must_measure_in_its_window(tmp_path):
    split, probe = {"when": "during", "at": [1, 2]}, {"every": 2, "window": [0.0, 0.5]}
    recipe = make_recipe(split=split, probe=probe)
    with pytest.raises(RecipeError, match=r"gives none of its 2\. Lower it, or raise split\.at"):
        check_parts(Run(recipe, tmp_path))


def test_a_search_has_one_probe(tmp_path):
    run = Run(make_recipe(split={"when": "during"}), tmp_path)
    with pytest.raises(RecipeError, match=r"split\.when=before"):
        check_study(run, None, "study")
    with pytest.raises(RecipeError, match=r"got 'split\.when'"):
        check_space(make_recipe(search={"space": {"split.when": ["during"]}}))


def test_a_row_beside_the_probes_split(tmp_path):
    recipe = make_recipe(compare={"during": True, "seeds": 2, "controls": []})
    run, scores = Run(recipe, tmp_path), noisy_scores(recipe)
    lines = plan(run, choose_split(recipe, scores), scores)
    (row,) = [line for line in lines if line.role == "during"]
    assert row.name == "split during training, at epoch 2"
    assert [training.start.until for training in row.trainings] == [2, 2]
    assert not any(t.goes_on for line in lines if line is not row for t in line.trainings)
    planned = {line.name: line for line in make_plan(run).lines}
    assert (planned["joint, up to epoch 2"].epochs, planned[row.name].epochs) == (2, 1)


def test_every_split_goes_on_where_the_recipe_says_so(tmp_path):
    recipe = make_recipe(
        TINY, split={"when": "during"}, compare={"rules": ["mass"], "ks": [2], "seeds": 1}
    )
    run, scores = Run(recipe, tmp_path), noisy_scores(recipe)
    lines = plan(run, choose_split(recipe, scores), scores)
    on = {line.name: all(training.goes_on for training in line.trainings) for line in lines}
    assert [name for name, goes_on in on.items() if not goes_on] == [
        "single left", "single right", "joint, unsplit", "pcgrad, unsplit",
    ]  # fmt: skip
    starts = {line.name: line.trainings[0].start for line in lines}
    assert (
        starts["random 3 layers"]
        == starts["rule mass, 2 layers"]
        == starts["joint, split at epoch 1"]
    )
    assert starts["pcgrad, split at epoch 1"].train.method == "pcgrad"


def test_a_run_that_splits_while_it_trains(invoke, tmp_path):
    text = MORE.replace("k = 3", 'k = 3\nwhen = "during"').replace("seeds = 2", "seeds = 1")
    (tmp_path / "r.toml").write_text(text.replace('"norm-only", "random", "random-params", ', ""))
    fewer = ("--set", 'compare.controls=["first-k"]', "--workers", "1")
    done = invoke("run", "r.toml", "--out", "out", *fewer)
    assert done.code == 0, done.error
    found = Comparison.load(tmp_path / "out/comparison.json")
    assert [row.name for row in found.rows if row.role == "split"] == ["joint, split at epoch 2"]
    model = Split.load(tmp_path / "out/model/split.json")
    assert model == Split.load(tmp_path / "out/split.json"), "of one seed both are the same"
    assert "split at epoch 2" in (tmp_path / "out/report.html").read_text()
    # Two tasks alone, the joint network, a first part, and two that go on with it.
    assert len(list((tmp_path / "out/trainings").iterdir())) == 6

    before = {path.name for path in (tmp_path / "out/trainings").iterdir()}
    alone = invoke("train", "r.toml", "--out", "out", "--resume", *fewer)
    assert alone.code == 0, alone.error
    assert before == {path.name for path in (tmp_path / "out/trainings").iterdir()}
    refused = invoke("compare", "r.toml", "--split", "out", "--scores", "out/scores.safetensors")
    assert (refused.code, refused.error.count("\n")) == (2, 1)
    assert "every training choose its own" in refused.error
