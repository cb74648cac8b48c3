"""The page: what it says, whatever things are called, and that anybody can read it."""

import html
import json
import re
import tomllib

import pytest

from recon_search import artefact
from recon_search.errors import ArtefactError
from recon_search.recipe import parse_recipe
from recon_search.runs.comparison import Comparison
from recon_search.stages.origin import write_origin
from recon_search.stages.report import write_report
from recon_search.views.report.answer import networks
from recon_search.views.report.page import CONTENTS
from tests.stages.recipes import TINY
from tests.views.report.fakes import MARKED, fake_run
from tests.views.report.parsing import faults_of, parse

INPUT = {"shape": [1, 12, 12], "mean": [0.1], "std": [0.3]}
NASTY = "<b>x</b> & \"q\" 'r' {0}"
MARKUP = "[bold]y[/bold] [/red]"
MOST = 5_000_000


def page_of(out, *tasks, **recipe):
    fake_run(out, tasks=tasks, **recipe)
    return write_report(out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    comparison = fake_run(out, tasks=(NASTY, "right"))
    values = json.loads((out / "comparison.json").read_text())
    values["verdict"] = f"Success <script>alert(1)</script> {NASTY} {MARKUP}"
    values["warning"] = "Warning: <i>scatter</i>"
    artefact.write_json(out / "comparison.json", values)
    write_origin(out, "cpu", ["run", "my recipe.toml", "--out", "<x>"], recipe="my recipe")
    path = write_report(out)
    assert path == out / "report.html"
    return comparison, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=[2, 6, 40])
def page_of_many(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("many")
    fake_run(out, request.param)
    return write_report(out).read_text(encoding="utf-8")


def rows_of(root, caption):
    """The cells of the rows of the table of this caption."""
    (table,) = (t for t in root.all("table") if next(t.all("caption")).text.startswith(caption))
    return [[c.text for c in row.children if not isinstance(c, str)] for row in table.all("tr")]


def test_anybody_can_read_it_and_nothing_leaves_it(page_of_many):
    root = parse(page_of_many)
    assert faults_of(root) == []
    assert len(page_of_many.encode()) < MOST
    assert "http" not in root.text
    assert "@import" not in page_of_many
    assert "url(" not in page_of_many


def test_sections_stand_in_their_order(page_of_many):
    root = parse(page_of_many)
    named = [section.attributes["id"] for section in root.all("section")]
    assert named == [name for name in CONTENTS if name != "search"]
    links = [a.attributes["href"][1:] for nav in root.all("nav") for a in nav.all("a")]
    assert links == named
    assert [h.text for h in root.all("h2")] == [CONTENTS[name] for name in named]


def test_faults_are_found():
    """The checks above can fail."""
    broken = "<h1>a</h1><h3>b</h3><img src='http://x/y.png'><th></th><input><a href='#no'>c</a>"
    found = " ".join(faults_of(parse(broken)))
    for words in ("h1 is followed by h3", "without alt", "src leads to", "empty th", "nowhere"):
        assert words in found
    with pytest.raises(AssertionError, match="is open"):
        parse("<p><b>a</p>")


def test_it_opens_with_the_answer_the_warning_and_then_the_verdict(page):
    _, text = page
    root = parse(text)
    assert next(root.all("h1")).text == "my recipe"
    (box,) = (d for d in root.all("div") if d.attributes.get("class") == "answer")
    verdict, gain, price = (p.text for p in box.all("p"))
    assert verdict.startswith("Splitting helps: with three of 43 layers private, one network")
    assert "points (95 % interval +" in gain
    assert "1.40x the parameters and 1.90x the FLOPs of that unsplit network; two" in price
    assert "two separate networks cost 2.00x and 2.00x." in price
    said = {p.attributes.get("class"): p.text for p in root.all("p")}
    assert said["verdict"] == f"Success <script>alert(1)</script> {NASTY} {MARKUP}"
    assert said["warning"] == "Warning: <i>scatter</i>"


def test_nothing_that_is_named_becomes_a_tag(page):
    _, text = page
    assert "<script>alert" not in text
    assert "<b>x" not in text
    assert text.count("<script") == 2  # the maps' numbers, and the page's own


def test_every_row_is_there_with_its_numbers(page):
    comparison, text = page
    rows = {row[1]: row for row in rows_of(parse(text), "Test data")}
    for number, row in enumerate(networks(comparison), start=1):
        mean = sum(row.delta_m) / len(row.delta_m)
        assert rows[row.name][0] == str(number)
        assert rows[row.name][2].startswith(f"{mean:+.2f} ± ")
        assert rows[row.name][5:7] == [
            f"{row.n_parameters / 1000:.2f}x", f"{row.flops / 2000:.2f}x",
        ]  # fmt: skip
    assert rows["2 separate networks"][5] == "2.00x"


def test_the_lead_says_what_was_done_with_which_tasks(page):
    (lead,) = (p.text for p in parse(page[1]).all("p") if p.attributes.get("class") == "lead")
    assert lead == (
        f"resnet18 on multi-digits: tasks {NASTY}, right; 3 of 43 layers split by rule count, "
        "S = 0, from 8 measured steps."
    )


def test_a_network_that_is_split_while_it_trains_is_said_to_be(tmp_path):
    split = {"rule": "count", "k": 3, "when": "during", "at": 1}
    root = parse(page_of(tmp_path, "left", "right", split=split))
    said = {p.attributes.get("class"): p.text for p in root.all("p")}
    assert "each network splits itself after epoch 1 of 2 by what it has measured" in said["lead"]
    (box,) = (d for d in root.all("div") if d.attributes.get("class") == "answer")
    assert "three of 43 layers private, split while it trains, after epoch 1, one" in box.text
    captions = " ".join(" ".join(each.text.split()) for each in root.all("figcaption"))
    assert "of the split network since it was split, after epoch 1" in captions
    assert "each network has what its own training chose" in captions
    curves = next(s for s in root.all("section") if s.attributes["id"] == "curves")
    assert "split" in [text.text for text in curves.all("text")]


@pytest.mark.parametrize("every", [0, 4])
def test_conflicts_that_were_not_measured_after_the_split_are_said_to_be_so(tmp_path, every):
    train = tomllib.loads(TINY)["train"] | {"measure_every": every}
    page = page_of(tmp_path, "left", "right", train=train)
    assert ("after the split was not measured" in page) is (every == 0)


def test_nothing_is_said_of_a_switch_where_there_is_none(page):
    for words in ("its own training chose", "since it was split", "splits itself"):
        assert words not in page[1]


def test_it_ends_with_the_command_and_what_it_ran_on(page):
    root = parse(page[1])
    (section,) = (s for s in root.all("section") if s.attributes["id"] == "recipe")
    command, recipe = (pre.text for pre in section.all("pre"))
    assert command == "recon-search run 'my recipe.toml' --out '<x>'"
    assert parse_recipe(json.loads(recipe)) == parse_recipe(tomllib.loads(TINY))
    facts = dict(
        zip((d.text for d in section.all("dt")), (d.text for d in section.all("dd")), strict=True)
    )
    assert {"torch", "machine", "Python", "begun"} <= facts.keys()
    assert facts["trainings"].startswith("24 in 84 s")


def test_passwords_are_not_on_the_page(tmp_path):
    write_origin(tmp_path, "cpu", ["search", "--storage", "postgresql://me:secret@host/db"])
    assert "secret" not in (tmp_path / "origin.json").read_text()


def test_a_run_that_goes_on_keeps_its_command(tmp_path):
    write_origin(tmp_path, "cpu", ["run", "a.toml"])
    write_origin(tmp_path, "cpu", ["run", "a.toml", "--resume"], goes_on=True)
    assert json.loads((tmp_path / "origin.json").read_text())["command"].endswith("a.toml")
    write_origin(tmp_path, "cpu", ["search", "a.toml"], goes_on=True)
    assert "search" in json.loads((tmp_path / "origin.json").read_text())["command"]


@pytest.mark.parametrize(
    "names",
    [
        ("[/red]", "[bold]y[/bold]", "</script>"),
        ("$_$", r"\\frac{$", "50 % {0} {{ x }}"),
        ("层 ñ 🙂", "a|b", "{% x %}"),
    ],
)
def test_what_a_task_is_called_is_no_markup(tmp_path, names):
    """Neither rich's, matplotlib's nor the templates'; in headers, cells, captions, pictures."""
    root = parse(page_of(tmp_path, *names))
    assert faults_of(root) == []
    heads = rows_of(root, "Test data")[0], rows_of(root, "8 measured steps")[0]
    for name in names:
        assert f"{name}\naccuracy %" in heads[0]
    assert heads[1][:4] == ["#", "layer", "count", "type"]
    assert f"conflicts\n{names[0]},\n{names[1]}" in heads[1]


@pytest.mark.parametrize(
    "name",
    ["recipe.json", "scores.safetensors", "split.json", "comparison.json", "model/config.json"],
)
def test_what_is_missing_is_named_and_no_page_is_written(tmp_path, name):
    fake_run(tmp_path, 2)
    (tmp_path / name).unlink()
    with pytest.raises(ArtefactError, match=re.escape(name)) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_what_earlier_versions_did_not_keep_is_left_out(tmp_path):
    fake_run(tmp_path, 2)
    values = json.loads((tmp_path / "comparison.json").read_text())
    del values["trainings"], values["single_flops"]
    artefact.write_json(tmp_path / "comparison.json", values)
    (tmp_path / "examples.safetensors").unlink()
    assert Comparison.load(tmp_path / "comparison.json").trainings == {}
    root = parse(write_report(tmp_path).read_text(encoding="utf-8"))
    named = {section.attributes["id"] for section in root.all("section")}
    assert not named & {"change", "curves", "examples"}
    assert faults_of(root) == []


def test_a_search_without_a_better_split_has_no_comparison(tmp_path):
    fake_run(tmp_path, 2)
    for name in ("split.json", "comparison.json", "examples.safetensors"):
        (tmp_path / name).unlink()
    summary = {"study": "s", "tally": "<3 complete", "best": "best & none", "trials": []}
    (tmp_path / "search.json").write_text(json.dumps(summary))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "no split did better than none" in page
    assert "&lt;3 complete; best &amp; none." in page
    named = [section.attributes["id"] for section in parse(page).all("section")]
    assert named == ["conflicts", "ranking", "search", "recipe"]


def test_of_a_search_the_chosen_recipe_is_shown(tmp_path):
    fake_run(tmp_path, 2)
    split = {"rule": "mass", "k": 2, "threshold": -0.13}
    best = parse_recipe(tomllib.loads(TINY) | {"split": split})
    (tmp_path / "best.json").write_text(best.model_dump_json())
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "split by rule mass, S = -0.13" in page
    assert "<output>-0.13</output>" in page


def test_split_layers_are_marked_in_the_map(page):
    marked = re.findall(r'class="layer end marked">([^<]*)<', page[1])
    assert set(marked) == set(MARKED)
    assert html.unescape(page[1]).count("bold layers") == 1
