"""Names that consoles and URLs could take for something else are shown, and used, as they are."""

import contextlib
import io
import sqlite3
import sys
import tomllib
from pathlib import Path

import pytest
import sqlalchemy
from rich.console import Console

from recon_search import cli
from recon_search.conflict.scores import ConflictScores
from recon_search.recipe import parse_recipe
from recon_search.search.urls import file_url, hide_password, is_missing
from tests.stages.recipes import TINY
from tests.stages.scores import noisy_scores

RECIPE = parse_recipe(tomllib.loads(TINY))
NAMES = ["runs[lr]", "[/red]", "[bold]x", "q?x=1", "a%3Fb", "per cent %", "ä ö", "a#b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_holds_and_shows_what_is_written(tmp_path, invoke, name):
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / name).mkdir(parents=True)
    noisy_scores(RECIPE).save(tmp_path / name / "scores.safetensors")
    done = invoke("rank", f"{name}/scores.safetensors")
    assert done.code == 0, done.error
    assert f"Written: {name}/conflicts.png" in done.output
    assert (tmp_path / name / "conflicts.png").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_search_database_is_in_the_folder_that_was_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)
    for path in (tmp_path / name / "search.db", Path(name) / "search.db"):
        path.unlink(missing_ok=True)
        engine = sqlalchemy.create_engine(url := file_url(path))
        assert is_missing(url)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE a (b INTEGER)"))
        engine.dispose()
        assert not is_missing(url)
        assert path.is_file()
        assert [found for found in tmp_path.rglob("*") if found.is_file()] == [tmp_path / path]


def test_a_console_without_letters_ends_no_command(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    cli._show_anything()
    Console(file=stream).print("Größe: 3 ÷ 4 [x]", markup=False)
    stream.flush()
    assert b"Gr\\xf6\\xdfe: 3 \\xf7 4 [x]" in stream.buffer.getvalue()


@pytest.mark.parametrize("key", ["password", "PASSWORD", "sslpassword", "passwd", "PWD"])
def test_a_password_is_hidden_however_it_is_spelt(key):
    url = f"postgresql://host/base?{key}=secret&user=me"
    assert "secret" not in hide_password(url)
    assert "user=me" in hide_password(url)
    assert sqlalchemy.make_url(url).query
    assert "secret" not in hide_password("mssql://?odbc_connect=UID%3Dme%3BPWD%3Dsecret")


@pytest.mark.parametrize("plot", ["x.xyz", "x", "x.pdf"])
def test_a_plot_of_another_kind_is_refused(tmp_path, invoke, plot):
    noisy_scores(RECIPE).save(tmp_path / "scores.safetensors")
    done = invoke("rank", "scores.safetensors", "--plot", plot)
    assert (done.code, (tmp_path / plot).exists()) == (2, False)
    assert f"--plot must end in .png or .svg, got '{plot}'" in done.error


def test_a_damaged_recipe_is_told_its_own_format(tmp_path, invoke):
    for name, kind in (("r.json", "JSON"), ("r.toml", "TOML")):
        (tmp_path / name).write_text("{")
        done = invoke("validate", name)
        assert done.code == 2
        assert f"A recipe must be {kind}, could not read {name}" in done.error
    (tmp_path / "r.json").write_text("[]")
    assert "must be a table of sections" in invoke("validate", "r.json").error


def test_equal_scores_are_equal_files(tmp_path):
    one, two = noisy_scores(RECIPE), noisy_scores(RECIPE)
    two.metadata = dict(reversed(two.metadata.items()))
    one.save(tmp_path / "one.safetensors")
    two.save(tmp_path / "two.safetensors")
    ConflictScores.load(tmp_path / "one.safetensors").save(tmp_path / "three.safetensors")
    first, *others = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert all(other == first for other in others)


def test_a_study_that_is_looked_for_in_another_database_leaves_it_as_it_is(tmp_path, invoke):
    (tmp_path / "empty.db").write_bytes(b"")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE mine (key INT)")
    for name in ("empty.db", "other.db"):
        before = (tmp_path / name).read_bytes()
        done = invoke("search", "--show", "study", "--storage", f"sqlite:///{name}")
        assert done.code == 2
        assert f"must be a database with studies, sqlite:///{name} holds none" in done.error
        assert (tmp_path / name).read_bytes() == before
    done = invoke("search", "--show", "study", "--storage", "sqlite:///gone.db?password=secret")
    assert (done.code, "secret" in done.error) == (2, False)
