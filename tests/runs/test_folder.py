"""Who may write into a run folder, and with what recipe it goes on."""

import json
import tomllib

import pytest

from recon_search.errors import ArtefactError, RecipeError, ReconSearchError
from recon_search.recipe import parse_recipe
from recon_search.runs.folder import open_folder, read_recipe
from tests.stages.recipes import TINY

RUN = ("split.json", "comparison.json")
SEARCH = ("search.db", "search.json")


def recipe_with(**sections):
    """The tiny recipe with keys of some sections set."""
    raw = tomllib.loads(TINY)
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values} if isinstance(values, dict) else values
    return parse_recipe(raw)


def begin(out, recipe=None, *, holds="trainings", **options):
    """Open a folder and leave something in it."""
    open_folder(recipe or recipe_with(), out, **({"resume": False} | options))
    (out / holds).touch()


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("is_search", [False, True])
def test_a_new_folder_is_made_with_its_recipe(tmp_path, resume, is_search):
    recipe = recipe_with(split={"k": 5})
    open_folder(recipe, tmp_path / "a/b", resume=resume, is_search=is_search)
    assert read_recipe(tmp_path / "a/b/recipe.json") == recipe
    assert set(files(tmp_path / "a/b")) == {"recipe.json", "identity.json"}


def test_a_folder_in_which_nothing_was_computed_takes_another_recipe(tmp_path):
    open_folder(recipe_with(), tmp_path, resume=False)
    other = recipe_with(train={"lr": 0.3})
    open_folder(other, tmp_path, resume=False)
    assert read_recipe(tmp_path / "recipe.json") == other
    begin(tmp_path, other, holds="scores.safetensors")
    with pytest.raises(RecipeError, match=r"Pass --resume"):
        open_folder(other, tmp_path, resume=False)


def test_a_folder_of_somebody_elses_files_is_not_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    open_folder(recipe_with(), tmp_path, resume=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_is_resumed_only_if_asked_for_and_only_with_its_recipe(tmp_path):
    begin(tmp_path)
    before = files(tmp_path)
    with pytest.raises(RecipeError, match=r"--out must name a new folder, found a run in .*resume"):
        open_folder(recipe_with(), tmp_path, resume=False)
    with pytest.raises(RecipeError, match=r"recipe.json \(\[train\], \[split\] differ\)\. Choose"):
        open_folder(recipe_with(train={"lr": 1.0}, split={"k": 9}), tmp_path, resume=True)
    assert files(tmp_path) == before, "a refused recipe leaves nothing"
    open_folder(recipe_with(), tmp_path, resume=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "section"),
    [
        ({"seed": 1}, "seed"),
        ({"data": {"test": 9}}, "data"),
        ({"backbone": {"features": 7}}, "backbone"),
        ({"head": {"hidden": 9}}, "head"),
        ({"train": {"momentum": 0.5}}, "train"),
        ({"probe": {"epochs": 2}}, "probe"),
        ({"split": {"threshold": -0.1}}, "split"),
        ({"search": {"seed": 9}}, "search"),
    ],
)
def test_the_section_that_differs_is_named(tmp_path, change, section):
    begin(tmp_path)
    with pytest.raises(RecipeError, match=rf"\(\[{section}\] differ\)"):
        open_folder(recipe_with(**change), tmp_path, resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"root": "/elsewhere"}},
        {"data": {"download": True}},
        {"search": {"trials": 99}},
        {"compare": {"seeds": 9, "controls": ["random"]}},  # what is trained already is kept
        {"train": {"momentum": 0.9}},  # the default, written down
    ],
)
def test_what_may_differ_is_taken_and_written_down(tmp_path, change):
    begin(tmp_path)
    changed = recipe_with(**change)
    open_folder(changed, tmp_path, resume=True)
    assert read_recipe(tmp_path / "recipe.json") == changed
    open_folder(recipe_with(), tmp_path, resume=True)


@pytest.mark.parametrize("left", RUN)
@pytest.mark.parametrize("resume", [False, True])
def test_a_search_does_not_take_a_runs_folder(tmp_path, left, resume):
    begin(tmp_path, holds=left)
    with pytest.raises(RecipeError, match=r"of its own for a search, found a run in .*--scores"):
        open_folder(recipe_with(), tmp_path, resume=resume, is_search=True)


@pytest.mark.parametrize("left", SEARCH)
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_does_not_take_a_searchs_folder(tmp_path, left, resume):
    begin(tmp_path, holds=left, is_search=True)
    with pytest.raises(RecipeError, match=r"a folder of its own for a run, found a search in "):
        open_folder(recipe_with(), tmp_path, resume=resume)


@pytest.mark.parametrize("left", SEARCH)
def test_a_search_that_has_compared_stays_a_search(tmp_path, left):
    begin(tmp_path, holds=left, is_search=True)
    for name in RUN:
        (tmp_path / name).touch()
    open_folder(recipe_with(), tmp_path, resume=True, is_search=True)
    with pytest.raises(RecipeError, match="found a search"):
        open_folder(recipe_with(), tmp_path, resume=True)


@pytest.mark.parametrize("is_search", [False, True])
def test_a_probes_folder_may_become_a_runs_or_a_searchs(tmp_path, is_search):
    begin(tmp_path, holds="scores.safetensors")
    open_folder(recipe_with(), tmp_path, resume=True, is_search=is_search)


def test_a_folder_that_an_earlier_version_began_goes_on(tmp_path):
    """It left the recipe alone, without the keys that came later."""
    raw = tomllib.loads(TINY)
    (tmp_path / "recipe.json").write_text(json.dumps(raw))
    (tmp_path / "trainings").mkdir()
    with pytest.raises(RecipeError, match=r"\(\[seed\] differ\)"):
        open_folder(recipe_with(seed=2), tmp_path, resume=True)
    open_folder(recipe_with(), tmp_path, resume=True)
    assert (tmp_path / "identity.json").is_file()


@pytest.mark.parametrize("content", ["{", '{"seed": "one"}', "[]"])
def test_a_recipe_that_cannot_be_read_is_said_to_be_so(tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    (tmp_path / "trainings").mkdir()
    with pytest.raises(ArtefactError, match=r"recipe\.json"):
        open_folder(recipe_with(), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "must be a JSON object"), ("{}", "differ"), ('{"seed": 3}', "`seed` breaks a rule")],
)
def test_an_identity_that_says_nothing_refuses(tmp_path, content, message):
    begin(tmp_path)
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(ReconSearchError, match=message):
        open_folder(recipe_with(), tmp_path, resume=True)


@pytest.mark.parametrize("name", ["model", "export", "report.html"])
def test_what_no_run_has_written_is_not_replaced(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").write_text("")
    for resume in (False, True):
        with pytest.raises(RecipeError, match=f"must not hold what a run would replace.*{name}"):
            open_folder(parse_recipe(tomllib.loads(TINY)), tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == [name]
