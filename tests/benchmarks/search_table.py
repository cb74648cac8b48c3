"""What `bench_search` has found, as tables."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]


def tables_of(result: Result) -> str:
    """The tables of a result, and how to repeat it."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    seeds = result["seeds"]
    return (
        f"{_noise(result)}\n\n{_shares(result)}\n\n{_regrets(result)}\n\n"
        f"`{result['command']}`, then `{result['replay']}` (seeds {seeds[0]} to {seeds[-1]}; "
        f"{result['trainings']} trainings; commit {result['commit']}, {versions}, "
        f"{result['machine']})\n"
    )


def _noise(result: Result) -> str:
    noise, n = result["noise"], result["own_seeds"]
    means = noise["means"]
    lines = [
        f"{len(result['splits'])} different splits over {len(result['seeds'])} seeds of "
        f"{result['epochs']} epochs each; mean validation delta_m {means[0]:+.2f} of the best, "
        f"{means[1]:+.2f} of the next, {means[len(means) // 2]:+.2f} of the middle one, "
        f"{means[-1]:+.2f} of the worst. What a measure knows of the better {noise['half']} (rho: "
        "Spearman's correlation with delta_m over other seeds), and how far below the best of all "
        "the one lies that it would pick from the whole grid:",
        "",
    ]
    epochs = range(1, result["epochs"] + 1)
    rows = [
        [
            "measure",
            "sd over seeds",
            "sd between splits",
            *(f"rho, epoch {epoch}" for epoch in epochs),
            f"rho, {n} seeds",
            "regret, 1 seed",
            f"regret, {n} seeds",
        ]
    ]
    for name in ("delta_m", "loss"):
        own = noise[name]
        rows.append(
            [
                f"`{name}`",
                f"{own['within']:.2f}",
                f"{own['between']:.2f}",
                *(f"{value:.2f}" for value in own["foretells_by_epoch"]),
                f"{own['foretells_all_seeds']:.2f}",
                _error(own["regret_one"]),
                _error(own["regret_all"]),
            ]
        )
    return "\n".join([*lines, _table(rows)])


def _shares(result: Result) -> str:
    n = result["searches"]
    nears = list(result["ways"][0]["share"])
    rows = [["drawn", "objective", "a trial's seeds"]]
    for near in nears:
        rows[0] += [f"within {near.replace('se', 'SE')}", "came there"]
    for way in result["ways"]:
        row = _names(way)
        for near in nears:
            low, middle, high = (100 * share for share in way["share"][near])
            row += [f"{middle:.0f} % ({low:.0f} to {high:.0f})", f"{way['came_there'][near]}/{n}"]
        rows.append(row)
    return _table(rows)


def _regrets(result: Result) -> str:
    budgets = list(result["ways"][0]["regret"]["delta_m"])
    rows = [["drawn", "objective", "a trial's seeds", "epochs spent in all"]]
    rows[0] += [f"at {100 * float(budget):.0f} %" for budget in budgets]
    for way in result["ways"]:
        regrets = [_error(way["regret"]["delta_m"][budget]) for budget in budgets]
        rows.append([*_names(way), f"{100 * way['spent']:.0f} %", *regrets])
    said = result["noise"]
    return (
        "Points of delta_m that the split returned lies below the best of the grid, over the other "
        "seeds, by share of the grid's epochs spent, mean over the repetitions ± its standard "
        f"error (of a split drawn blindly {_error(said['at random'])}, of the unsplit network "
        f"{_error(said['unsplit'])}):\n\n{_table(rows)}"
    )


def _names(way: Result) -> list[str]:
    return [way["sampler"], f"`{way['objective']}`", way["way"]]


def _error(value: list[float]) -> str:
    return f"{value[0]:.2f} ± {value[1]:.2f}"


def _table(rows: list[list[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
