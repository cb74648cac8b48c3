"""Recipes: what is refused, and how it is said."""

import re

import pytest

from recon_search.errors import RecipeError
from recon_search.methods.registry import check_method
from recon_search.recipe import load_recipe
from tests.stages.recipes import TINY


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_a_recipe_and_its_overrides(tiny):
    recipe = load_recipe(
        tiny,
        ["split.k=7", "backbone.name=resnet34", "compare.controls=[]", "data.root=/some/where"],
    )
    assert (recipe.split.k, recipe.backbone.name, recipe.data.root) == (
        7,
        "resnet34",
        "/some/where",
    )
    assert recipe.compare.controls == []
    assert recipe.train.momentum == 0.9


def test_all_errors_of_a_file_are_reported_together(tiny):
    tiny.write_text(
        TINY.replace("epochs = 2", "epochs = -2\nbatchsize = 3").replace("seed = 0", "sede = 0")
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(tiny)
    message = str(caught.value)
    assert "`sede` is no key of a recipe. Did you mean 'seed'" in message
    assert "`train.batchsize` is no key of a recipe. Did you mean 'batch_size'" in message
    assert "`train.epochs`: input should be greater than 0, got -2." in message
    lines = message.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{tiny}: `") for line in lines), "each says where"


def test_rules_between_keys_are_reported_together_with_all_else(tiny):
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            tiny,
            [
                "train={epochs=1, batch_size=2, lr=0.1, low_memory=true, accumulate=2}",
                "probe.confidence=0.9",
                "split.max_params='1.2x'",
                "compare.ks=[3]",
                "seed=-1",
            ],
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for part in ("`train.low_memory` needs", "`probe.confidence` needs", "exclude each other"):
        assert sum(part in line for line in lines) == 1
    assert any(
        "`compare.rules` and `compare.ks` or `compare.budgets` need each other" in line
        for line in lines
    )


@pytest.mark.parametrize("key", ["probe.sketch", "train.measure_sketch"])
def test_a_sketch_has_enough_numbers_or_none(tiny, key):
    with pytest.raises(RecipeError, match=rf"`{key}` must be 0 .* at least 16, got 15"):
        load_recipe(tiny, [f"{key}=15"])
    assert load_recipe(tiny, [f"{key}=16"]) != load_recipe(tiny, [f"{key}=0"])


def test_two_rules_of_one_section_are_both_reported(tiny):
    settings = "probe={epochs=1, confidence=0.9, tasks_per_step=1}"
    with pytest.raises(RecipeError, match=r"`probe\.tasks_per_step` must be 0") as caught:
        load_recipe(tiny, [settings])
    assert "`probe.confidence` needs" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split.threshold=-1.0", r"`split.threshold`: input should be greater than -1"),
        ("split.threshold=0.1", r"`split.threshold`: input should be less than or equal to 0"),
        ("train.epochs=2.5", r"`train.epochs`: input should be a valid integer"),
        ("train.epochs=true", r"`train.epochs`: input should be a valid integer"),
        ("compare.controls=['nothing']", r"`compare.controls.0`"),
        ("split.max_params='1.2x'", r"exclude each other"),
        ("split.max_params='lots'", r"`split.max_params`"),
        ("split.max_flops='0.5x'", r"`split.max_flops`: value error, must be at least 1x"),
        ("probe.confidence=0", r"`probe.confidence`: input should be greater than 0"),
        ("probe.confidence=1.5", r"`probe.confidence`: input should be less than or equal to 1"),
        (
            "train={epochs=1, batch_size=2, lr=0.1, low_memory=true, accumulate=2}",
            r"`train.low_memory` needs `train.accumulate` 1, got 2",
        ),
        ("nonsense", r"--set must be path=value"),
        ("split.k.deep=1", r"'k' is a value, not a section"),
        ("train.lr=inf", r"`train.lr`: input should be a finite number"),
        ("probe.window=[nan, 1.0]", r"`probe.window.0`: input should be a finite number"),
        ("compare.methods=[]", r"`compare.methods`: list should have at least 1 item"),
        ("compare.controls=['random', 'random']", r"'random' is named twice"),
        ("probe.confidence=0.9", r"needs `probe.seeds` of 2 at least, got 1"),
    ],
)
def test_refused_values(tiny, override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(tiny, [override])


def test_three_layers_are_split_where_nothing_else_is_said(tiny):
    tiny.write_text(TINY.replace("k = 3", ""))
    assert load_recipe(tiny).split.k == 3
    budget = load_recipe(tiny, ["split.max_params=1.5x"]).split
    assert (budget.k, budget.max_params) == (None, "1.5x")


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(RecipeError, match="found no file at"):
        load_recipe(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1\n\n  epochs 3  # of all\n", "line 3, .*, which reads 'epochs 3  # of all'"),
        ("seed = 1\na = [", "at end of document., which reads 'a = .'"),
        ("name = 'oak", 'which reads "name = \'oak"'),
        ("a = 1\na = 2\n", "which reads 'a = 2'"),
        ("", "is needed and missing"),
    ],
)
def test_the_line_that_is_no_toml_is_quoted(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(tmp_path / "bad.toml")
    assert "A recipe must be TOML" in str(error.value) or not text
    assert "\n" not in str(error.value) or not text


HUGE = 10**20


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**64),
        ("data.seed", -1),
        ("data.image_size", [HUGE, 1]),
        ("train.epochs", HUGE),
        ("train.batch_size", HUGE),
        ("train.accumulate", HUGE),
        ("train.decay_rate", 1e300),
        ("train.weight_decay", 1e300),
        ("train.head_lr_scale", 1e300),
        ("train.clip_grad", 1e300),
        ("train.warmup_epochs", HUGE),
        ("train.milestones", [HUGE]),
        ("train.patience", HUGE),
        ("train.measure_every", HUGE),
        ("probe.epochs", HUGE),
        ("probe.every", HUGE),
        ("probe.seeds", 10**14),
        ("compare.seeds", 10**14),
        ("search.trials", HUGE),
        ("search.heartbeat", HUGE),
        ("search.retries", HUGE),
    ],
)
def test_numbers_that_would_end_in_memory_or_overflow_are_refused(tiny, key, value):
    """They would crash a run later, after it was found valid."""
    with pytest.raises(RecipeError, match=rf"`{key}(\.0)?.*`: input should be (less|greater)"):
        load_recipe(tiny, [f"{key}={value}"])


@pytest.mark.parametrize("value", ["1e300", "-1e300", "nan", "inf", "1" + "0" * 40])
def test_options_of_methods_fit_the_tensors_they_meet(value):
    with pytest.raises(RecipeError, match=r"train\.options\.lr` must be a float"):
        check_method("rotograd", {"lr": float(value)}, tasks=("a", "b"), where="train.options")


def test_a_recipe_as_large_as_a_disk_takes_no_memory(tmp_path):
    path = tmp_path / "large.toml"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RecipeError, match="it is larger than 1,048,576 bytes"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("split.at=0", "greater than or equal to 1, or greater than 0, or a valid array, got 0."),
        ("split.at='x'", "a valid integer, or a valid number, or a valid array, got 'x'."),
        ("split.at=[1, 0]", "`split.at.1`: input should be greater than or equal to 1, or greater"),
        ("tasks.left.target=3", "`tasks.left.target`: input should be a valid string, or a valid"),
        ("data.augment.color_jitter=[0.1, 'x']", "`data.augment.color_jitter.1`: input should be"),
        ("search.space.low={low=1}", "`search.space.low.high` is needed and missing."),
        ("search.space.low={low=1, high=2, lo=1}", "`search.space.low.lo` is no key of a recipe."),
        ("compare.splits={a={file='x', fil='y'}}", "`compare.splits.a.fil` is no key of a recipe."),
    ],
)
def test_a_key_of_several_types_has_one_line_without_the_names_of_types(tiny, override, line):
    with pytest.raises(RecipeError) as caught:
        load_recipe(tiny, [override])
    said = str(caught.value)
    assert (line in said, said.count("\n")) == (True, 0), said
    assert not re.search(r"constrained|list\[|union|Range|function-", said)
