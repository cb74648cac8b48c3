"""The page: what it says, whatever things are called."""

import html
import json
import re
import tomllib

import pytest

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ArtefactError
from recon_search.graph.split import Split
from recon_search.model.network import FORMAT
from recon_search.recipe import parse_recipe
from recon_search.runs.comparison import Best, Comparison, Row
from recon_search.stages.report import write_report
from tests.stages.recipes import TINY
from tests.stages.scores import noisy_scores

INPUT = {"shape": [1, 12, 12], "mean": [0.1], "std": [0.3]}
NASTY = "<b>x</b> & \"q\" 'r' {0}"
MARKUP = "[bold]y[/bold] [/red]"
TASKS = (NASTY, "right")


def make_comparison(tasks=TASKS):
    def row(name, role, delta_m, difference, p_value):
        metrics = {task: {"accuracy": [51.5, 53.5], "loss": [1.0, 1.0]} for task in tasks}
        return Row(
            name, role, "joint", metrics, delta_m, 1000, 2000, 0.25, difference, p_value
        )  # fmt: skip

    rows = [
        row("joint, unsplit", "joint", [-5.0, -7.0], (-8.5, 0.5), 0.031),
        row(f"joint, split {NASTY} {MARKUP}", "split", [2.0, 3.0], None, None),
        row("random 3 layers", "control", [1.0, 1.0], (-1.5, 0.7), 0.21),
    ]
    return Comparison(
        seeds=[0, 1],
        threshold=-0.05,
        directions={task: {"accuracy": 1} for task in tasks},
        single={task: {"accuracy": [50.25, 52.25]} for task in tasks},
        single_parameters=2000,
        rows=rows,
        verdict=f"Success <script>alert(1)</script> {NASTY} {MARKUP}",
        best=Best("joint, split", 0, 1.0, "trainings/0"),
        warning="",
    )


@pytest.fixture(scope="module")
def scores():
    return noisy_scores(parse_recipe(tomllib.loads(TINY)))


def fill(out, scores, tasks=TASKS, **recipe):
    """What a finished run leaves, of tasks of any name."""
    raw = tomllib.loads(TINY) | recipe
    (out / "recipe.json").write_text(parse_recipe(raw).model_dump_json())
    own = ConflictScores(scores.layers, tasks, scores.metadata)
    own.load_state(scores.tensors, out)
    own.save(out / "scores.safetensors")
    layers = ["layer1.0.conv1", "layer2.0.bn1"]
    Split.private(layers, tasks, backbone=scores.metadata["backbone"]).save(out / "split.json")
    make_comparison(tasks).save(out / "comparison.json")
    (out / "model").mkdir()
    config = {"backbone": scores.metadata["backbone"], "input": INPUT}
    artefact.write_json(out / "model/config.json", {"format": FORMAT, **config})
    return out


@pytest.fixture(scope="module")
def page(tmp_path_factory, scores):
    out = fill(tmp_path_factory.mktemp("run"), scores)
    path = write_report(out)
    assert path == out / "report.html"
    return path.read_text(encoding="utf-8")


def text_of(page):
    """What a reader sees: without tags, entities resolved."""
    body = page.partition("<body>")[2].replace("\n", " ")
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def rows_of(page):
    """The cells of every row of every table."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, flags=re.S)
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.S)]
        for row in rows
    ]


def test_the_verdict_is_on_the_page_as_it_is_in_the_comparison(page):
    (verdict,) = re.findall(r'<p class="verdict">(.*?)</p>', page, flags=re.S)
    assert html.unescape(verdict) == make_comparison().verdict


def test_a_warning_is_shown_beside_it(tmp_path, scores):
    out = fill(tmp_path, scores)
    values = json.loads((out / "comparison.json").read_text())
    values["warning"] = "Warning: <i>scatter</i>"
    artefact.write_json(out / "comparison.json", values)
    page = write_report(out).read_text(encoding="utf-8")
    found = re.findall(r'<p class="verdict">(.*?)</p>', page, flags=re.S)
    assert [html.unescape(each) for each in found][1:] == ["Warning: <i>scatter</i>"]


def test_nothing_that_is_named_becomes_a_tag(page):
    assert "<script" not in page
    assert "<b>x" not in page
    allowed = "html|head|meta|title|style|body|h1|h2|p|pre|div|table|tr|th|td|img"
    tags = re.findall(r"</?([a-zA-Z][a-zA-Z0-9]*)", page.partition("</style>")[2])
    assert set(tags) <= set(allowed.split("|"))


def test_every_row_is_there_with_its_numbers(page):
    rows = {row[0]: row[1:] for row in rows_of(page) if row}
    assert rows["single-task models"][:3] == ["51.25 ± 1.41", "51.25 ± 1.41", "0"]
    assert rows["joint, unsplit"] == [
        "52.50 ± 1.41", "52.50 ± 1.41", "-6.00 ± 1.41", "-8.50 ± 0.50", "0.031", "1.00x", "1.00x",
        "25.0",
    ]  # fmt: skip
    split = rows[f"joint, split {NASTY} {MARKUP}"]
    assert split[2:5] == ["+2.50 ± 0.71", "", ""]
    assert rows["random 3 layers"][4] == "0.210"


def test_the_lead_says_what_was_done_with_which_tasks(page):
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', page, flags=re.S)
    assert html.unescape(lead) == (
        f"resnet18 on multi-digits: tasks {NASTY}, right; 2 of 43 layers split by rule count, "
        "S = 0.0, from 20 measured steps."
    )


def test_the_page_needs_no_other_file_and_no_network(page):
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 4
    assert "http" not in text_of(page)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "@import" not in page


NAMES = ["[/red]", "[bold]y[/bold]", "$_$", "$x$", r"\\frac{$", "$$", "层 ñ 🙂", "50 % {0}"]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_task_is_called_is_no_markup(tmp_path, scores, name):
    """Neither rich's nor matplotlib's; in headers, cells, captions and pictures."""
    out = fill(tmp_path, scores, tasks=(name, "right"))
    page = write_report(out).read_text(encoding="utf-8")
    heads = [row for row in rows_of(page) if "network" in row or "layer" in row]
    assert f"{name}\naccuracy %" in heads[0]
    assert f"conflicts\n{name}-right" in heads[1]
    assert ("\\" in text_of(page)) == ("\\" in name)


def test_the_recipe_is_on_the_page(page):
    (shown,) = re.findall(r"<pre>(.*?)</pre>", page, flags=re.S)
    assert parse_recipe(json.loads(html.unescape(shown))) == parse_recipe(tomllib.loads(TINY))


@pytest.mark.parametrize(
    "name",
    ["recipe.json", "scores.safetensors", "split.json", "comparison.json", "model/config.json"],
)
def test_what_is_missing_is_named_and_no_page_is_written(tmp_path, scores, name):
    out = fill(tmp_path, scores, tasks=("left", "right"))
    (out / name).unlink()
    with pytest.raises(ArtefactError, match=re.escape(name)) as caught:
        write_report(out)
    assert "\n" not in str(caught.value)
    assert not (out / "report.html").exists()


def test_a_search_without_a_better_split_has_no_comparison(tmp_path, scores):
    out = fill(tmp_path, scores, tasks=("left", "right"))
    for name in ("split.json", "comparison.json"):
        (out / name).unlink()
    summary = {"study": "s", "tally": "<3 complete", "best": "best & none", "trials": []}
    (out / "search.json").write_text(json.dumps(summary))
    (out / "search.png").write_bytes(b"\x89PNG")
    page = write_report(out).read_text(encoding="utf-8")
    assert "no split did better than none" in page
    assert "<p>&lt;3 complete; best &amp; none.</p>" in page
    assert 'class="verdict"' not in page
    assert "<h2>The split</h2>" not in page


def test_of_a_search_the_chosen_recipe_is_shown(tmp_path, scores):
    out = fill(tmp_path, scores, tasks=("left", "right"))
    best = parse_recipe(
        tomllib.loads(TINY) | {"split": {"rule": "mass", "k": 2, "threshold": -0.1}}
    )
    (out / "best.json").write_text(best.model_dump_json())
    assert "split by rule mass, S = -0.1" in write_report(out).read_text(encoding="utf-8")
