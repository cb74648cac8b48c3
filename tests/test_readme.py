"""The README and the pages beside the recipes: what is printed there can be typed, and runs."""

import os
import re
import shlex
import shutil
import tomllib
import warnings
from dataclasses import fields
from pathlib import Path

import click
import pytest

from recon_search.recipe import find_recipe, load_recipe, parse_recipe
from recon_search.tasks import edge_metrics, metrics, pixel_metrics
from recon_search.tasks.registry import KINDS
from tests.command import call, commands, parse
from tests.data.files import photo_rows, write_photos

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "recipes").glob("*.md")), *sorted((ROOT / ".github").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
METRICS = {
    "classes": metrics.CLASSES,
    "binary": metrics.BINARY,
    "labels": metrics.LABELS,
    "values": metrics.VALUES,
    "segments": pixel_metrics.SEGMENTS,
    "depth": pixel_metrics.DEPTH,
    "normals": pixel_metrics.NORMALS,
    "edges": edge_metrics.EDGES,
}

SMALL = {
    "image_size = [224, 224]": "image_size = [32, 32]",
    "workers = 2 ": "workers = 0 ",
    'name = "resnet18"': 'args = { channels = [4, 4, 8, 8] }\nname = "resnet18"',
    "pretrained = true": "pretrained = false",
    "epochs = 10": "epochs = 1",
    "lr = 0.0003": "lr = 0.001",
    "warmup_epochs = 1": "warmup_epochs = 0",
    "batch_size = 32": "batch_size = 8",
    "epochs = 4\nevery = 4": "epochs = 2\nevery = 1",
    "seeds = 4": "seeds = 2",
    "seeds = 3": "seeds = 1",
    'controls = ["norm-only", "random", "first-k"]': 'controls = ["first-k"]',
}
"""What a user edits in the copied recipe, so that it runs in seconds; each line is in it once."""

ELSEWHERE = {
    "DATA": "needs files that are not here",
    "postgresql": "needs a server: tests/stages/test_search_postgres.py",
    "--map": "needs tasks of other names: tests/stages/test_borrow.py",
    "--paint": "needs tasks of pixels: tests/stages/test_predict_maps.py",
    "torchrun": "starts processes: tests/test_parallel.py",
    "quickstart": "takes minutes",
    "SECTION": "stands for a name",
    "NAME": "stands for a name",
    "PYTHONPATH": "tests/runs/test_own_data.py",
}
"""Words of commands that are parsed and not run, and why."""


def printed(path):
    """The commands that a page prints, each as words, joined over lines, without comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        lines = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#   recon-")]
    else:
        blocks = "".join(re.findall(r"```sh\n(.*?)```", text, flags=re.S))
        lines = blocks.replace("\\\n", " ").splitlines()
        lines += re.findall(r"`((?:PYTHONPATH=\S+ )?recon-search [^`]+)`", text)
    found = []
    for line in lines:
        words = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
                continue
            if "recon-search" in words[:2] or words[:1] == ["torchrun"]:
                found.append(words)
            words = []
    return found


def arguments_of(words):
    """What follows `recon-search`, without redirections."""
    start = next(i for i, word in enumerate(words) if word in ("recon-search", "recon_search"))
    end = words.index(">") if ">" in words else None
    return words[start + 1 : end]


def is_spoken_of(words):
    """Whether a command is named and not given, as `recon-search data` is: it lacks arguments."""
    if tuple(words) not in commands():
        return False
    try:
        parse(words)
    except click.UsageError:
        return True
    return False


def page_id(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*PAGES, *RECIPES], ids=page_id)
def test_every_printed_command_is_one(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in printed(path):
        if is_spoken_of(arguments_of(words)):
            continue
        _, values = parse(arguments_of(words))
        recipe = values.get("recipe_path")
        if recipe is None or str(recipe) in ("RECIPE", "NAME"):
            continue
        name = {"my.toml": "photos", "other.toml": "photos"}.get(str(recipe), str(recipe))
        found = find_recipe(Path(name).name if (ROOT / name).is_file() else name)
        found = ROOT / name if (ROOT / name).is_file() else found
        load_recipe(found, [each.replace("$NAME", "multi-mnist") for each in values["overrides"]])


def test_commands_are_found():
    """What checks every one of them would pass if there were none."""
    assert len(printed(README)) > 10
    assert sum(len(printed(page)) for page in PAGES) > 60
    assert ["recon-search", "run", "recipes/quickstart.toml"] in printed(README)


def test_the_readme_is_short_and_says_how_to_start():
    text = README.read_text(encoding="utf-8")
    assert len(text.encode()) <= 8192
    assert "pip install . && recon-search run recipes/quickstart.toml\n" in text
    tests = "pip install -e '.[test]' && pytest -n 2 && ruff check . && mypy recon_search\n"
    assert tests in text
    gate = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert {"pytest -n 2", "ruff check .", "mypy recon_search"} <= set(gate)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        place, _, heading = link.partition("#")
        if place.startswith("http"):
            continue
        target = path.parent / place if place else path
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, link


def test_every_recipe_has_a_row_and_every_page_is_named():
    text = (ROOT / "recipes/README.md").read_text(encoding="utf-8")
    others = {path.name for path in PAGES if path.parent.name == "recipes"} - {"README.md"}
    for name in {path.name for path in RECIPES} | others:
        assert f"]({name})" in text


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_recipes_in_pages_are_valid(path):
    base = tomllib.loads((ROOT / "recipes/photos.toml").read_text(encoding="utf-8"))
    for block in re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S):
        parse_recipe(base | tomllib.loads(block))


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_python_in_pages_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.S):
        if "mine.onnx" in block:
            continue  # run where there is such a file: tests/stages/test_export.py
        exec(compile(block, path.name, "exec"), {})
    assert "```python" in text or path.name != "python.md"


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_kinds_has_their_metrics_and_options(kind):
    text = (ROOT / "recipes/data.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| `{kind}` |"))
    _, _, told, options = (cell.strip() for cell in row.strip("|").split("|"))
    known = {field.name: field.default for field in fields(KINDS[kind])}
    assert {name.strip("* ") for name in told.split(",")} == set(METRICS[kind])
    assert set(re.findall(r"\*\*([\w.-]+)\*\*", told)) == set(known["metrics"])
    built = {"name", "weight", "metrics", "n_classes", "n_values", "mean", "std", "class_names"}
    assert set(re.findall(r"`(\w+)`", options)) - {"classes"} == set(known) - built


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Type commands in an empty folder that has `photos/` in it, on a machine with one core."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    rows = [row | {"file": row["file"].replace(".png", ".jpg")} for row in photo_rows(40)]
    write_photos(tmp_path / "photos", rows)

    def type_in(words):
        if "init" in words and "--out" in words:  # each page begins in an empty folder
            (tmp_path / words[words.index("--out") + 1]).unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters
            done = call(*arguments_of(words), cwd=tmp_path)
        assert done.code == 0, (words, done.error)
        if "init" in words and "my.toml" in words:
            edit(tmp_path / "my.toml")
            shutil.copy(tmp_path / "my.toml", tmp_path / "other.toml")
        return done

    type_in.folder = tmp_path
    return type_in


def edit(recipe):
    """Make the copied recipe small, as one makes it one's own."""
    text = recipe.read_text(encoding="utf-8")
    for old, new in SMALL.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    recipe.write_text(text, encoding="utf-8")


def runnable(path):
    """The commands of a page that can be run here; of one that is only spoken of, none."""
    every = [words for words in printed(path) if not is_spoken_of(arguments_of(words))]
    return [words for words in every if not any(name in " ".join(words) for name in ELSEWHERE)]


def test_own_images_from_the_readme(user):
    """The six lines, as printed, and what they leave behind."""
    text = README.read_text(encoding="utf-8")
    block = text[text.index("## Your own images") : text.index("## Deploy")]
    lines = [words for words in printed(README) if " ".join(words) in " ".join(block.split())]
    names = [words[1] for words in lines if "my.toml" in words or "runs/my/model" in words]
    assert names == ["init", "data", "validate", "plan", "run", "predict"]
    for words in lines:
        user(words)
    assert (user.folder / "runs/my/report.html").is_file()
    table = (user.folder / "predictions.csv").read_text(encoding="utf-8")
    header = table.splitlines()[0].split(",")
    assert [name for name in header if " probability" not in name] == [
        *("file", "species", "age", "healthy"),
    ]
    assert table.count("\n") == 41


FINISHED = {
    "README.md": (),
    "data.md": ("my",),
    "reading.md": ("my",),
    "search.md": ("my",),
    "stages.md": ("other", "one"),
}
"""What a page takes for done already: folders of finished runs of the recipe."""


@pytest.mark.slow
@pytest.mark.parametrize("page", FINISHED)
def test_every_command_of_the_readme_and_the_pages_runs(user, page):
    if FINISHED[page]:
        for command in ("init photos --out my.toml", "run my.toml --out done"):
            user(["recon-search", *command.split()])
    for name in FINISHED[page]:
        shutil.copytree(user.folder / "done", user.folder / "runs" / name)
    for words in runnable(README if page == "README.md" else ROOT / "recipes" / page):
        user(words)
