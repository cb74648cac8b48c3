"""The recipes that come with the package: found, listed, copied, and in the wheel."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import recon_search as rs
from recon_search.errors import RecipeError
from recon_search.recipe import find_recipe, load_recipe, shipped_recipes
from recon_search.recipe.shipped import describe, files_of, published_orders

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "recon_search/views/report/templates"
FILES = sorted((ROOT / "recipes").glob("*.toml"))


def test_the_package_finds_the_repositorys_recipes():
    assert [path.resolve() for path in shipped_recipes().values()] == FILES
    assert {"quickstart", "photos"} <= shipped_recipes().keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_can_be_read_and_says_in_a_sentence_what_it_is_for(path):
    text = path.read_text(encoding="utf-8")
    assert {"data", "backbone", "train", "probe"} <= tomllib.loads(text).keys()
    assert 20 < len(describe(path)) < 120
    assert f"recon-search run recipes/{path.name}" in text or "recon-search run my.toml" in text
    load_recipe(path)


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_recipe_is_known_by_its_name_where_no_file_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe(name) == load_recipe(ROOT / "recipes" / f"{name}.toml")
    Path(name).write_text("seed = -1")
    with pytest.raises(RecipeError, match=f"{name}: `seed`"):
        load_recipe(name)
    assert find_recipe(f"folder/{name}") == Path("folder", name)


def test_a_recipe_that_is_nowhere_is_refused_with_those_that_are_known():
    with pytest.raises(RecipeError, match=r"no file at nowhere\.toml.*photos, quickstart"):
        load_recipe("nowhere.toml")


@pytest.mark.parametrize(
    ("name", "near"),
    [("quickstrt", "quickstart"), ("mine.tml", "mine.toml"), ("a/b.tml", "b.toml")],
)
def test_near_names_of_recipes_here_and_in_the_package_are_told(name, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for own in ("mine.toml", "a/b.toml"):
        (tmp_path / own).touch()
    with pytest.raises(RecipeError, match=f"no file at {name}. Did you mean '{near}'"):
        load_recipe(name)


def test_init_copies_and_never_overwrites_by_itself(tmp_path, invoke):
    done = invoke("init", "quickstart")
    assert (done.code, done.error) == (0, "")
    written = tmp_path / "quickstart.toml"
    assert written.read_bytes() == (ROOT / "recipes/quickstart.toml").read_bytes()
    written.write_text("mine")
    code, _, error = invoke("init", "quickstart")
    assert (code, written.read_text()) == (2, "mine")
    assert "found one at quickstart.toml" in error
    assert error.count("\n") == 1
    assert invoke("init", "quickstart", "--force").code == 0
    assert written.read_text() != "mine"
    assert invoke("init", "--out", "new/my.toml").code == 0
    assert (tmp_path / "new/my.toml").read_bytes() == (ROOT / "recipes/photos.toml").read_bytes()


def test_init_copies_the_module_that_a_recipe_imports(tmp_path, invoke):
    done = invoke("init", "own-data", "--out", "new/my.toml")
    assert done.output.startswith("Written: new/my.toml, new/own_data.py\n")
    original = ROOT / "recipes/own_data.py"
    assert (tmp_path / "new/own_data.py").read_bytes() == original.read_bytes()
    code, _, error = invoke("init", "own-data", "--out", "new/other.toml")
    assert code == 2
    assert "found one at new/own_data.py" in error
    assert not (tmp_path / "new/other.toml").exists()


def test_init_of_an_unknown_recipe_names_the_nearest(invoke):
    code, _, error = invoke("init", "quikstart")
    assert code == 2
    assert "got 'quikstart'. Did you mean 'quickstart'?" in error


def test_recipes_are_listed(invoke):
    rows = json.loads(invoke("ls", "recipes", "--json").output)
    assert [row["name"] for row in rows] == [path.stem for path in FILES]
    lines = invoke("ls", "recipes").output.splitlines()
    assert [line.split()[0] for line in lines] == [path.stem for path in FILES]
    assert all(line.endswith((".", "?")) for line in lines)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy, which leaves the source tree as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("recon_search", "recipes"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", source, "-w", folder]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q"]
    done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_recipes_and_templates_travel_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as packed:
        for path in (file for recipe in FILES for file in files_of(recipe)):
            assert packed.read(f"recon_search/recipes/{path.name}") == path.read_bytes()
        for path in published_orders().values():
            assert packed.read(f"recon_search/recipes/published/{path.name}") == path.read_bytes()
        for path in TEMPLATES.iterdir():
            place = path.relative_to(ROOT).as_posix()
            assert packed.read(place) == path.read_bytes()


def test_what_the_wheel_installs_works_outside_the_source_tree(wheel, tmp_path):
    target, folder = tmp_path / "installed", tmp_path / "elsewhere"
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "install", wheel, "--target", target, "--no-deps", "-q"]
    subprocess.run([*pip, "--no-index", "--no-compile"], check=True)

    def run(*arguments):
        command = [target / "bin/recon-search", *arguments]
        environment = os.environ | {"PYTHONPATH": str(target)}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version") == f"recon-search, version {rs.__version__}\n"
    assert len(run("ls", "recipes").splitlines()) == len(FILES)
    run("init", "quickstart", "--out", "my.toml")
    assert (folder / "my.toml").read_bytes() == (ROOT / "recipes/quickstart.toml").read_bytes()
    assert run("validate", "my.toml", "--quick").startswith("Valid. resnet18 has 47 splittable")
