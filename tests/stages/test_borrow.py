"""Splits from elsewhere are carried over to a run's tasks, or refused in one line."""

import tomllib
from pathlib import Path

import pytest

from recon_search import identity as identities
from recon_search.errors import ArtefactError, RecipeError, SplitError
from recon_search.graph.split import Split
from recon_search.model.facts import facts_of
from recon_search.recipe import parse_recipe
from recon_search.recipe.shipped import published_orders
from recon_search.runs.run import Run
from recon_search.stages.borrow import borrowed_splits, load_split, split_by_counts
from recon_search.stages.check import check
from recon_search.stages.compare import plan
from recon_search.stages.split import choose_split
from tests.graph.published import RESNET18
from tests.stages.recipes import TINY
from tests.stages.scores import TASKS, noisy_scores


def recipe_with(**sections):
    raw = tomllib.loads(TINY)
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    return parse_recipe(raw)


def run_with(**sections):
    return Run(recipe_with(**sections), Path("out"))


@pytest.fixture(scope="module")
def identity():
    """What a split of the tiny recipe says of its backbone."""
    return facts_of(recipe_with().backbone, (1, 12, 12)).identity


# Files of splits


def save(split, folder):
    split.save(folder / "split.json")
    return folder / "split.json"


def test_a_split_of_the_same_tasks_is_read_as_it_is(tmp_path, identity):
    split = Split(
        TASKS, {"conv1": (("left",), ("right",))}, backbone=identity, chosen={"rule": "count"}
    )
    assert load_split(save(split, tmp_path), run_with()) == split


def test_a_split_of_other_tasks_is_private_to_those_of_the_run(tmp_path, identity):
    split = Split.private(["conv1", "fc"], ["seg", "depth", "normals"], backbone=identity)
    found = load_split(save(split, tmp_path), run_with())
    assert found.tasks == TASKS
    assert found.layers == {"conv1": (("left",), ("right",)), "fc": (("left",), ("right",))}


def test_groups_of_other_tasks_do_not_carry_over(tmp_path, identity):
    groups = {"conv1": (("seg", "depth"), ("normals",))}
    split = Split(("seg", "depth", "normals"), groups, backbone=identity)
    with pytest.raises(SplitError, match=r"which of seg, depth, normals is 'left'.* seg depth \|"):
        load_split(save(split, tmp_path), run_with())


@pytest.mark.parametrize("features", [0, 3])
def test_a_split_fits_whatever_the_classifier(tmp_path, identity, features):
    path = save(Split.private(["layer1.0.conv1"], TASKS, backbone=identity), tmp_path)
    assert load_split(path, run_with(backbone={"features": features})).layers


@pytest.mark.parametrize(
    ("layer", "backbone", "message"),
    [
        ("conv1", {"args": {"channels": [4, 4, 8, 16]}}, "The split must fit the backbone"),
        ("conv1", {"name": "resnet34"}, "The split must fit the backbone"),
        ("layer9.conv1", {}, r"must be one of the backbone's trainable layers .*'layer9\.conv1'"),
    ],
)
def test_a_split_of_another_backbone_is_refused(tmp_path, identity, layer, backbone, message):
    path = save(Split.private([layer], TASKS, backbone=identity), tmp_path)
    with pytest.raises(SplitError, match=message):
        load_split(path, run_with(backbone=backbone))


def test_a_split_that_names_no_backbone_needs_its_layers_alone(tmp_path):
    path = save(Split.private(["conv1"], TASKS), tmp_path)
    assert load_split(path, run_with(backbone={"name": "resnet34"})).layers


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": "other"}'])
def test_a_file_that_is_no_split_is_one_line(tmp_path, content):
    path = tmp_path / "split.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ArtefactError, match=r"split\.json") as caught:
        load_split(path, run_with())
    assert "\n" not in str(caught.value)


# Tasks by other names

THREE = ("seg", "depth", "normals")


@pytest.fixture
def grouped(tmp_path, identity):
    """A file of a split in which two of three tasks share a copy."""
    groups = {
        "conv1": (("seg", "depth"), ("normals",)),
        "bn1": (("seg",), ("depth",), ("normals",)),
    }
    return save(Split(THREE, groups, backbone=identity), tmp_path)


def test_tasks_share_a_copy_where_those_that_they_map_to_do(grouped):
    apart = load_split(grouped, run_with(), {"left": "depth", "right": "normals"})
    assert apart == Split.private(["conv1", "bn1"], TASKS)
    together = load_split(grouped, run_with(), {"left": "seg", "right": "depth"})
    assert together == Split.private(["bn1"], TASKS), "conv1 is shared by all that are left"


def test_tasks_of_the_same_name_need_no_mapping(tmp_path, identity):
    groups = {"conv1": (("left", "right"), ("other",)), "bn1": (("left",), ("right", "other"))}
    path = save(Split((*TASKS, "other"), groups, backbone=identity), tmp_path)
    assert load_split(path, run_with()) == Split.private(["bn1"], TASKS)
    renamed = load_split(path, run_with(), {"right": "other"})
    assert renamed == Split.private(["conv1", "bn1"], TASKS), "left is left"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"lfet": "seg"}, "the recipe has no task 'lfet' but left, right. Did you mean 'left'"),
        (
            {"left": "sge"},
            "the split has no task 'sge' but seg, depth, normals. Did you mean 'seg'",
        ),
        ({"left": "seg"}, "which of seg, depth, normals is 'right'.* Pass --map 'right'=NAME"),
    ],
)
def test_a_mapping_that_does_not_fit_is_one_line(grouped, mapping, message):
    with pytest.raises(SplitError, match=message) as caught:
        load_split(grouped, run_with(), mapping)
    assert "\n" not in str(caught.value)


def test_tasks_that_share_every_copy_of_what_they_map_to_are_one_line(tmp_path, identity):
    groups = {"conv1": (("seg", "depth"), ("normals",))}
    path = save(Split(THREE, groups, backbone=identity), tmp_path)
    with pytest.raises(
        SplitError, match=r"share every copy \(left = seg, right = depth\)"
    ) as caught:
        load_split(path, run_with(), {"left": "seg", "right": "depth"})
    assert "\n" not in str(caught.value)


# Scores, folders and tables of counts


def test_of_scores_and_folders_the_recipe_takes_its_part(tmp_path):
    run = run_with(split={"k": 4})
    scores = noisy_scores(run.recipe)
    scores.save(tmp_path / "scores.safetensors")
    chosen = choose_split(run.recipe, scores)
    assert load_split(tmp_path / "scores.safetensors", run) == chosen
    assert load_split(tmp_path, run) == chosen
    own = Split.private(["fc"], TASKS)
    own.save(tmp_path / "split.json")
    assert load_split(tmp_path, run) == own, "what a run has chosen comes first"


def test_scores_of_another_backbone_or_of_nobody_knows_what_are_refused(tmp_path):
    scores = noisy_scores(recipe_with())
    scores.save(tmp_path / "scores.safetensors")
    wider = run_with(backbone={"args": {"channels": [4, 4, 8, 16]}})
    with pytest.raises(SplitError, match=r"must be of the recipe's backbone, resnet18 with digest"):
        load_split(tmp_path, wider)
    del scores.metadata["layer_infos"]
    scores.save(tmp_path / "scores.safetensors")
    with pytest.raises(RecipeError, match=r"lack layer_infos\. Probe"):
        load_split(tmp_path, run_with())


def test_a_folder_with_nothing_to_split_by_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"split\.json or scores\.safetensors, found neither"):
        load_split(tmp_path, run_with())


def test_published_counts_need_a_k_and_known_layers(tmp_path):
    (tmp_path / "counts.json").write_text('{"conv1": 2, "bn1": 9, "fc": 1}')
    run = run_with(split={"k": 2})
    assert set(split_by_counts(run, tmp_path / "counts.json").layers) == {"conv1", "bn1"}
    with pytest.raises(RecipeError, match=r"A table .* needs `split\.k`"):
        split_by_counts(run_with(split={"k": None, "max_params": "2x"}), tmp_path / "counts.json")
    (tmp_path / "counts.json").write_text('{"conv9": 2}')
    with pytest.raises(SplitError, match="'conv9'"):
        split_by_counts(run, tmp_path / "counts.json")


def test_the_published_order_is_that_of_timms_resnet18():
    """Recon's layers are called as timm's: all 41 of a ResNet18 with a classifier, worst first."""
    run = run_with(backbone={"args": {}, "features": 100}, split={"k": 41})
    found = load_split("published:recon-multi-fashion-mnist", run)
    assert list(found.layers) == RESNET18
    assert set(found.layers) == set(run.facts.analysis.layers)
    top = load_split("published:recon-multi-fashion-mnist", run_with(split={"k": 25}))
    assert list(top.layers) == RESNET18[:25]


def test_published_orders_of_other_networks_are_refused_by_the_first_layer_missing():
    assert len(published_orders()) == 3
    with pytest.raises(SplitError, match=r"does not have 'decoder_block\.0\.bn1'"):
        load_split("published:recon-cityscapes-segnet", run_with())


def test_an_order_that_nobody_published_is_refused_with_near_ones():
    with pytest.raises(ArtefactError, match=r"got 'recon-nyu'\. Did you mean 'recon-nyuv2-mtan'"):
        load_split("published:recon-nyu", run_with())


# Comparisons


def borrowing(path, **more):
    return {"compare": {"seeds": 2, "methods": ["joint"], "controls": [], "splits": path, **more}}


def test_a_comparison_has_a_row_for_each(grouped):
    splits = {
        "elsewhere": {"file": str(grouped), "map": {"left": "depth", "right": "normals"}},
        "recon": "published:recon-multi-fashion-mnist",
    }
    run = run_with(**borrowing(splits))
    check(run)
    scores = noisy_scores(run.recipe)
    lines = plan(run, choose_split(run.recipe, scores), scores)
    found = {line.name: line for line in lines if line.role == "borrowed"}
    assert list(found) == ["split from elsewhere", "split from recon"]
    assert found["split from recon"].trainings[1].split == Split.private(RESNET18[:3], TASKS)
    expected = Split.private(["conv1", "bn1"], TASKS)
    assert [each.split for each in found["split from elsewhere"].trainings] == [expected] * 2
    assert {each.train.method for each in found["split from elsewhere"].trainings} == {"joint"}


def test_one_mapping_may_do_for_all(grouped):
    mapping = {"left": "seg", "right": "depth"}
    run = run_with(**borrowing({"elsewhere": str(grouped)}, map=mapping))
    assert borrowed_splits(run) == {"elsewhere": Split.private(["bn1"], TASKS)}


def test_validate_names_the_key_of_one_that_does_not_fit(grouped, tmp_path, invoke):
    text = TINY + f'splits = {{ elsewhere = "{grouped}" }}\n'
    (tmp_path / "tiny.toml").write_text(text)
    code, _, error = invoke("validate", "tiny.toml", "--quick")
    assert (code, error.count("\n")) == (2, 1)
    assert "`compare.splits.elsewhere`: A split with grouped tasks needs to know" in error
    mapped = ["--set", 'compare.map={ left = "seg", right = "normals" }']
    assert invoke("validate", "tiny.toml", "--quick", *mapped).code == 0


def test_train_takes_the_mapping_of_its_split(grouped, invoke, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    pairs = ["--map", "left=seg", "--map", "right=depth"]
    done = invoke(
        "train", "tiny.toml", "--split", grouped, *pairs, "--out", "out", "--workers", "1"
    )
    assert done.code == 0, done.error
    assert Split.load(tmp_path / "out/model/split.json") == Split.private(["bn1"], TASKS)


def test_a_task_is_mapped_once(grouped, invoke, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    pairs = ["--map", "left=seg", "--map", "right=depth", "--map", "left=normals"]
    code, _, error = invoke("train", "tiny.toml", "--split", grouped, *pairs, "--out", "out")
    assert code == 2
    assert "once, got 'left=seg' and 'left=normals'" in error


def test_a_run_goes_on_whatever_it_is_compared_with(grouped):
    """Its trainings count by the content of their splits."""
    before = identities.of_run(recipe_with(**borrowing({})))
    assert identities.of_run(recipe_with(**borrowing({"elsewhere": str(grouped)}))) == before
