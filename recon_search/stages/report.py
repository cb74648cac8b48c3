"""One self-contained HTML page that a person would rather look at than read logs."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.anatomy import dissect
from recon_search.graph.split import Split
from recon_search.model.facts import facts_of
from recon_search.model.files import read_config
from recon_search.model.foreign import backbone_of
from recon_search.model.inputs import input_of
from recon_search.recipe import Recipe
from recon_search.runs.comparison import Comparison
from recon_search.runs.folder import read_recipe
from recon_search.stages.split import reading_of
from recon_search.tasks.registry import create_task
from recon_search.views.outline import cost_table
from recon_search.views.picture import picture
from recon_search.views.plots import comparison_plot, draw, heat_map, trade_off_plot
from recon_search.views.tables import comparison_table, ranking_table
from recon_search.views.trials import read_summary, trial_table

NONE = "no split did better than none"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1040px; margin: 2.5rem auto;
  padding: 0 1.5rem; }}
h1 {{ font-size: 1.7rem; margin-bottom: 0; }}
h2 {{ font-size: 1.15rem; margin-top: 2.6rem; border-bottom: 1px solid #ddd; }}
.lead {{ color: #555; margin-top: .2rem; }}
.verdict {{ background: #f6f4ee; border-left: 4px solid #c44e52; padding: .8rem 1.1rem; }}
table {{ border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #eee;
  white-space: nowrap; }}
th {{ vertical-align: bottom; white-space: pre-line; color: #555; font-weight: 600; }}
th.left, td.left {{ text-align: left; }}
tr.bold td {{ font-weight: 700; }} tr.dim td {{ color: #777; }}
img {{ max-width: 100%; }} .scroll {{ overflow-x: auto; }}
pre {{ background: #f7f7f7; padding: 1rem; font-size: .8rem; overflow-x: auto; }}
</style></head><body>
<h1>{title}</h1><p class="lead">{lead}</p>
{body}
</body></html>
"""


def write_report(out: Path) -> Path:
    """Write `report.html` from the artefacts of a run directory.

    Of a search that found no split better than none, there is no comparison to show.

    Raises:
        ArtefactError: an artefact of the run is missing or damaged.
    """
    best = out / "best.json"  # where a search chose it
    resolved = best if best.is_file() else out / "recipe.json"
    recipe = read_recipe(resolved)
    scores = ConflictScores.load(out / "scores.safetensors")
    split = None
    if (out / "split.json").is_file() or not (out / "search.json").is_file():
        split = Split.load(out / "split.json")
    reading = f"by rule {recipe.split.rule}, S = {recipe.split.threshold}"
    choice = (
        f"{len(split.layers)} of {len(scores.layers)} layers split {reading}" if split else NONE
    )
    lead = (
        f"{recipe.backbone.name} on {recipe.data.name}: tasks {', '.join(scores.tasks)}; "
        f"{choice}, from {scores.steps} measured steps."
    )
    n_marked = max(1, len(split.layers)) if split else 1
    sections = [
        *([] if split is None else _comparison_sections(out)),
        "<h2>Where the tasks conflict</h2>",
        _image(heat_map(scores), "conflicts by layer and threshold"),
        "<h2>The ranking</h2>",
        _table(ranking_table(scores, recipe.split.rule, reading_of(recipe), n_marked)),
        *([] if split is None else _split_section(out, recipe, split)),
        *_search_section(out),
        "<h2>The recipe</h2>",
        f"<pre>{html.escape(recipe.model_dump_json(indent=2))}</pre>",
    ]
    title = f"recon-search: {recipe.data.name}"
    page = _PAGE.format(title=html.escape(title), lead=html.escape(lead), body="\n".join(sections))
    artefact.write_text(out / "report.html", page)
    return out / "report.html"


def _comparison_sections(out: Path) -> list[str]:
    """Whether the split helped, and at what price."""
    comparison = Comparison.load(out / "comparison.json")
    return [
        f'<p class="verdict">{html.escape(comparison.verdict)}</p>',
        f'<p class="verdict">{html.escape(comparison.warning)}</p>' if comparison.warning else "",
        "<h2>Comparison</h2>",
        _table(comparison_table(comparison)),
        "<p>Every difference is paired by seed. The networks of a row are trained alike; the model "
        "to export is chosen on validation data, test data is looked at once.</p>",
        _image(comparison_plot(comparison), "delta_m of every network and seed"),
        "<h2>What it costs</h2>",
        _image(trade_off_plot(comparison), "delta_m against parameters and FLOPs"),
    ]


def _split_section(out: Path, recipe: Recipe, split: Split) -> list[str]:
    """The network that the split makes."""
    model = read_config(out / "model")
    known = model.get("tasks")  # models of the first format have numbers of classes there
    tasks = [create_task(spec) for spec in known] if isinstance(known, list) else []
    shape, frozen = input_of(model)["shape"], recipe.train.freeze
    backbone = backbone_of(model.get("backbone") or {}, out / "model" / "config.json")
    facts = facts_of(backbone, shape, frozen, tasks=tasks)
    anatomy = dissect(facts.analysis, split, title=facts.config.name)
    return [
        "<h2>The split</h2>",
        _image(picture(anatomy), "what trunk and branches compute, with whose weights"),
        _table(cost_table(anatomy)),
    ]


def _search_section(out: Path) -> list[str]:
    """What was tried, if a search chose the split."""
    if not (out / "search.json").is_file():
        return []
    summary = read_summary(out / "search.json")
    return [
        "<h2>The search</h2>",
        f"<p>{html.escape(summary['tally'])}; {html.escape(summary['best'])}.</p>",
        _picture((out / "search.png").read_bytes(), "validation delta_m of the trials"),
        _table(trial_table(summary)),
    ]


def _image(figure: Figure, text: str) -> str:
    buffer = io.BytesIO()
    draw(figure, buffer, "png", dpi=110)
    return _picture(buffer.getvalue(), text)


def _picture(content: bytes, text: str) -> str:
    encoded = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{encoded}">'


def _table(table: Table) -> str:
    """The same table the terminal shows, as HTML."""
    console = Console(width=400)
    left = [column.justify != "right" for column in table.columns]
    head = "".join(
        f"<th{_left(is_left)}>{html.escape(console.render_str(str(column.header)).plain)}</th>"
        for column, is_left in zip(table.columns, left, strict=True)
    )
    cells = [list(column.cells) for column in table.columns]
    rows: list[str] = []
    for index, row in enumerate(table.rows):
        style: Any = row.style or ""
        columns = "".join(
            f"<td{_left(is_left)}>{html.escape(console.render_str(str(column[index])).plain)}</td>"
            for column, is_left in zip(cells, left, strict=True)
        )
        rows.append(f'<tr class="{style}">{columns}</tr>')
    caption = (
        f"<p>{html.escape(console.render_str(str(table.caption)).plain)}</p>"
        if table.caption
        else ""
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>{caption}'


def _left(is_left: bool) -> str:
    return ' class="left"' if is_left else ""
