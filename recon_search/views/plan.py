"""A plan as a person reads it, and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from recon_search.runs.timing import Span
from recon_search.stages.planned import Plan, StepCost
from recon_search.views.markup import escape

DEAR = 4.0
"""Plain steps that a step takes from which on it is said what lowers its cost."""


def as_json(plan: Plan) -> dict[str, Any]:
    """Plain values; seconds as `low`, `middle` and `high`."""
    return {**asdict(plan), "n_trainings": plan.n_trainings}


def plan_table(plan: Plan) -> Table:
    """What will be trained: a line for each row of the comparison."""
    table = Table(title="What the run trains", title_justify="left")
    table.add_column("network", no_wrap=True)
    table.add_column("method")
    for name in ("trainings", "done", "epochs", "parameters", "FLOPs", "each"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in plan.lines:
        table.add_row(
            escape(line.name),
            line.method,
            str(line.trainings),
            str(line.done or ""),
            str(line.epochs),
            _range(line.parameters),
            _range(line.flops),
            _duration(line.seconds.middle),
        )
    return table


def step_table(plan: Plan) -> Table:
    """What a step of each kind takes, beside a joint step of the same network."""
    table = Table(title=f"Steps, timed on {plan.device}", title_justify="left")
    table.add_column("network")
    table.add_column("step", no_wrap=True)
    table.add_column("ms (quartiles)", justify="right", no_wrap=True)
    table.add_column("to joint", justify="right", no_wrap=True)
    table.add_column("gradients kept", justify="right", no_wrap=True)
    for step in plan.steps:
        low, middle, high = (1000 * each for each in vars(step.seconds).values())
        plain = _plain(plan, step)
        times = kept = ""
        if plain is not None:
            times = f"{step.seconds.middle / plain.seconds.middle:.2f}x"
            kept = f", {step.gradients / plain.gradients:.1f}x"
        table.add_row(
            step.network,
            _name(step),
            f"{middle:.1f} ({low:.1f} to {high:.1f})",
            times,
            f"{_bytes(step.gradients)}{kept}",
        )
    return table


def _name(step: StepCost) -> str:
    """Name a step's method, and how it measures."""
    name = f"{step.method}, measured" if step.measured else step.method
    if step.tasks:
        name += f" {step.tasks} tasks"
    return f"{name}, sketch {step.sketch}" if step.sketch else name


def _plain(plan: Plan, step: StepCost) -> StepCost | None:
    """The plain joint step of a step's network, if it was timed."""
    for other in plan.steps:
        if (other.network, other.method, other.measured) == (step.network, "joint", False):
            return other
    return None


def _many_tasks(plan: Plan) -> list[str]:
    """Say which steps cost many plain ones, and what lowers that."""
    found = []
    for step in plan.steps:
        plain = _plain(plan, step)
        if plain is None or step.seconds.middle < DEAR * plain.seconds.middle:
            continue
        times = f"{step.seconds.middle / plain.seconds.middle:.0f} joint steps"
        if step.measured and step.method == "joint":
            found.append(
                f"A measured step of {'its' if step.tasks else 'all'} tasks takes {times} "
                f"({step.network}): `probe.tasks_per_step` measures fewer at once, `probe.sketch` "
                "keeps less of their gradients, `probe.every` measures less often."
            )
        elif not step.measured:
            found.append(
                f"A step of {step.method} takes {times} ({step.network}): it needs every task's "
                "gradient; methods on losses (`recon-search ls methods`) need one backward pass."
            )
    return found


def describe(plan: Plan) -> str:
    """Say how long it takes, how much memory, and how far that can be trusted."""
    at_once = "one at a time" if plan.workers == 1 else f"{plan.workers} at once"
    sentences = [
        f"{plan.n_trainings} trainings, {at_once}: about {_duration(plan.seconds.middle)}, between "
        f"{_interval(plan.seconds)} by the quartiles of the steps.",
        f"Memory: about {_bytes(plan.memory)} a training.",
    ]
    sentences += _many_tasks(plan)
    if any(line.role == "probe" and line.trainings > line.done + 1 for line in plan.lines):
        sentences.append("The probe may stop before its last seed, if the recipe lets it.")
    if not plan.is_probed:
        sentences.append(
            "Which layers are split is not known yet: the time is that of splitting the first "
            "ones, the most work that so many can be."
        )
    sentences.append(
        "Not in it: starting processes, export and report (most of a short run), and trainings "
        "that slow each other down. Steps are timed once, now: what else this machine does then or "
        "did just now may make it several times as long."
    )
    return " ".join(sentences)


def _range(ends: tuple[int, int]) -> str:
    low, high = (_short(end) for end in ends)
    return low if low == high else f"{low} to {high}"


def _short(n: float) -> str:
    for unit in ("", "k", "M", "G"):
        if n < 1000:
            return f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:.4g}T"


def _interval(span: Span) -> str:
    return f"{_duration(span.low)} and {_duration(span.high)}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = seconds / 60
    return f"{minutes:.2g} min" if minutes < 100 else f"{minutes / 60:.2g} h"


def _bytes(n: float) -> str:
    return f"{n / 2**20:.0f} MiB" if n < 2**30 else f"{n / 2**30:.1f} GiB"
