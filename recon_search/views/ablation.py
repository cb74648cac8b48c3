"""An ablation as a person reads it: layers by benefit, and rules by how well they foretold it."""

from __future__ import annotations

from rich.table import Table

from recon_search.runs.ablation import Ablation
from recon_search.tasks.scoring import mean_and_deviation
from recon_search.views.markup import escape
from recon_search.views.tables import show_interval, show_p, write_p


def ablation_table(found: Ablation) -> Table:
    """The layers, the one worth most first, with their places in the rules' rankings."""
    n_seeds = len(found.seeds)
    mean, deviation = mean_and_deviation(found.joint)
    spread = f" ± {deviation:.2f}" if n_seeds > 1 else ""
    table = Table(
        title=f"One layer split at a time, {n_seeds} seed{'s' * (n_seeds > 1)}: "
        f"{len(found.layers)} of {found.n_layers} layers; {found.method}, unsplit: delta_m "
        f"{mean:+.2f}{spread}",
        title_justify="left",
        caption="benefit: delta_m minus the unsplit network's, paired by seed; in brackets 95 % "
        "confidence intervals; p Holm-corrected over the layers; then the layer's place by each "
        f"rule among {found.n_layers}",
        caption_justify="left",
    )
    table.add_column("layer", no_wrap=True)
    for heading in ("benefit", "p", "para-\nmeters", "FLOPs", *(own.rule for own in found.rules)):
        table.add_column(escape(heading), justify="right")
    places = sorted(range(len(found.layers)), key=lambda i: -found.layers[i].benefit.mean)
    for place in places:
        layer = found.layers[place]
        table.add_row(
            escape(layer.layer),
            show_interval(layer.benefit),
            show_p(layer.benefit),
            f"{layer.n_parameters:.2f}x",
            f"{layer.flops:.2f}x",
            *(str(own.ranks[place]) for own in found.rules),
        )
    return table


def foretold_table(found: Ablation) -> Table:
    """Spearman's correlation of each rule's values with the benefits."""
    table = Table(title="What foretells the benefit", title_justify="left")
    table.add_column("rule")
    table.add_column("Spearman", justify="right")
    table.add_column("p, by itself", justify="right")
    for own in found.rules:
        known = own.spearman is not None and own.p_value is not None
        values = (f"{own.spearman:+.2f}", write_p(own.p_value)) if known else ("not known", "")
        table.add_row(escape(own.rule), *values)
    return table


def describe_ablation(found: Ablation) -> str:
    """Say how far the benefits can be foretold at all."""
    n_seeds, ceiling = len(found.seeds), found.ceiling
    if ceiling is None:
        said = (
            "How far the benefits can be foretold at all is not known: that takes two seeds and "
            "three layers that differ."
        )
    else:
        said = (
            f"Benefits measured over one half of the {n_seeds} seeds correlate by "
            f"{ceiling.halves:+.2f} (Spearman) with those over the other; by Spearman and Brown "
            f"{ceiling.reliability:.2f} over all seeds with as many others, so even the true "
            f"benefits would correlate by {ceiling.ceiling:.2f} with those measured."
        )
        if not ceiling.reliability:
            said += " The benefits are all noise: train longer, or over more seeds."
    return " ".join(filter(None, (said, found.warning)))
