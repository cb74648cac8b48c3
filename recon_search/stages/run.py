"""The whole story: recipe to report."""

from __future__ import annotations

from recon_search.graph.anatomy import dissect
from recon_search.interruption import Stopped
from recon_search.runs.comparison import Comparison
from recon_search.runs.pool import kept_workers
from recon_search.runs.run import Run
from recon_search.stages.compare import compare, count_trainings, probe_in_training
from recon_search.stages.examples import show_examples
from recon_search.stages.export import hand_over
from recon_search.stages.probe import probe
from recon_search.stages.report import write_report
from recon_search.stages.split import choose_split
from recon_search.views.picture import picture
from recon_search.views.plots import save_figure


@kept_workers()
def run_all(run: Run) -> Comparison:
    """Probe, rank, split, retrain, compare, export and report.

    The recipe must have passed `check`. What a run folder already holds is not computed again,
    so running anew after an interruption goes on from the last epochs.

    With `split.when = "during"` nothing is probed apart: scores are those of the first parts of all
    seeds, `split.json` is what they choose together, and each network has the split that its own
    training chose, which is in its model directory.
    """
    run.listener.expect(count_trainings(run))
    try:
        scores = probe_in_training(run) if run.recipe.split.when == "during" else probe(run)
    except Stopped as left:
        left.args = (f"{str(left) or 'nothing was trained'}; the comparison has not begun",)
        raise
    split = choose_split(run.recipe, scores, schema=run.schema)
    split.save(run.out / "split.json")
    facts = run.facts
    anatomy = dissect(facts.analysis, split, title=facts.config.name)
    save_figure(picture(anatomy), run.out / "split.png")
    run.listener.expect(0)
    comparison = compare(run, split, scores)
    hand_over(comparison, run.out)
    show_examples(run)
    write_report(run.out)
    return comparison
