"""One layer split at a time: which layers, what is trained, and what comes of it."""

import json
import tomllib

import pytest

from recon_search.errors import RecipeError
from recon_search.recipe import parse_recipe
from recon_search.runs.ablation import Ablation
from recon_search.runs.run import Run
from recon_search.stages import compare
from recon_search.stages.ablate import choose_ablated, plan
from recon_search.stages.split import choose_split
from tests.stages.recipes import TINY
from tests.stages.scores import noisy_scores

LAYERS = ["conv1", "bn1", "layer1.conv1", "layer1.bn1", "layer2.conv1"]
SMALL = (
    TINY.replace("train = 128", "train = 32")
    .replace("epochs = 2", "epochs = 1")
    .replace("measure_every = 2\n", "")
    .replace('methods = ["joint", "pcgrad"]', 'methods = ["joint"]')
)


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("1", [0]),
        ("2", [0, 4]),
        ("3", [0, 2, 4]),
        ("5", [0, 1, 2, 3, 4]),
        ("layer1.*", [2, 3]),
        ("*.bn1, conv1", [0, 3]),
    ],
)
def test_layers_are_all_some_evenly_spaced_or_named(wanted, places):
    assert choose_ablated(LAYERS, wanted) == [LAYERS[place] for place in places]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("0", "between 1 and 5"), ("6", "between 1 and 5"), ("-1", "between"), ("layer9.*", "layer9")],
)
def test_layers_that_are_not_there_are_one_line(wanted, said):
    with pytest.raises(RecipeError, match=said) as raised:
        choose_ablated(LAYERS, wanted)
    assert "\n" not in str(raised.value)


def test_what_a_comparison_has_trained_is_not_trained_again(tmp_path):
    recipe = parse_recipe(tomllib.loads(SMALL))
    scores, run = noisy_scores(recipe), Run(recipe, tmp_path)
    compared = {
        training.identity(run)
        for line in compare.plan(run, choose_split(recipe, scores), scores)
        if line.role in ("single", "joint")
        for training in line.trainings
    }
    lines = plan(run, "2")
    ours = [t.identity(run) for line in lines for t in line.trainings if line.role != "layer"]
    assert set(ours) == compared
    assert [line.name for line in lines[-2:]] == ["conv1", "fc"]
    for line in lines[-2:]:
        assert [list(training.split.layers) for training in line.trainings] == [[line.name]] * 2


def test_an_ablation_from_recipe_to_table(invoke, tmp_path):
    (tmp_path / "r.toml").write_text(SMALL)
    layers = ("--layers", "conv1,layer2.0.conv1,layer4.1.bn2")
    planned = invoke("plan", "r.toml", "--ablate", layers[1], "--json", "--workers", "1")
    assert planned.code == 0, planned.error
    # A probe, two tasks alone, one joint network and three split ones, over two seeds.
    assert json.loads(planned.output)["n_trainings"] == 1 + 2 * (2 + 1 + 3)

    done = invoke("ablate", "r.toml", *layers, "--workers", "1", "--out", "out")
    assert done.code == 0, done.error
    path = tmp_path / "out" / "ablation.json"
    found, written = Ablation.load(path), path.read_bytes()
    assert [own.layer for own in found.layers] == layers[1].split(",")
    for own in found.layers:
        differences = [a - b for a, b in zip(own.delta_m, found.joint, strict=True)]
        assert own.benefit.mean == pytest.approx(sum(differences) / 2)
    assert {own.rule for own in found.rules} >= {"count", "projection", "mass", "gain", "first-k"}
    first = next(own for own in found.rules if own.rule == "first-k")
    assert first.ranks == sorted(first.ranks)
    assert first.ranks[0] == 1
    for text in ("conv1", "Spearman", "projection", "ablation.json"):
        assert text in done.output
    assert len(list((tmp_path / "out" / "trainings").iterdir())) == 13

    path.unlink()
    refused = invoke("ablate", "r.toml", *layers, "--out", "out")
    assert refused.code == 2
    assert "--resume" in refused.error
    times = {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/trainings/*/*")}
    again = invoke("ablate", "r.toml", *layers, "--workers", "1", "--out", "out", "--resume")
    assert again.code == 0, again.error
    assert path.read_bytes() == written
    assert times == {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/trainings/*/*")}


def test_layers_are_looked_at_before_anything_is_written(invoke, tmp_path):
    (tmp_path / "r.toml").write_text(SMALL)
    done = invoke("ablate", "r.toml", "--layers", "nolayer", "--out", "out")
    assert done.code == 2
    assert done.error.count("\n") == 1
    assert not (tmp_path / "out").exists()
