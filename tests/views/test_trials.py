"""Tables and plots of a study, whatever has become of its trials."""

import contextlib
import io

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState
from rich.console import Console

from recon_search.conflict.rules import RULES
from recon_search.search.measure import note_measure
from recon_search.search.rungs import BY_SEED
from recon_search.views.searching import SearchDisplay
from recon_search.views.trial_plots import pareto, search_plot
from recon_search.views.trials import read_summary, summarise, trial_table, write_summary

CHOICES = {
    "split.rule": optuna.distributions.CategoricalDistribution(["count", "projection"]),
    "split.k": optuna.distributions.IntDistribution(0, 40),
}


def study_of(*trials, directions=("maximize",)):
    study = optuna.create_study(study_name="shown", directions=list(directions))
    for state, values, attributes in trials:
        k = len(study.trials)
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=values,
                params={"split.rule": "count", "split.k": k},
                distributions=CHOICES,
                user_attrs={
                    "layers": ["a"] * k,
                    "n_parameters": 1000 + k,
                    "flops": k,
                    **attributes,
                },
            )
        )
    return study


@contextlib.contextmanager
def shown(name, console):
    """The display of a study of three trials, for the block."""
    display = SearchDisplay(name, 3, console)
    display.start()
    yield display
    display.stop()


def printed(study):
    console = Console(width=200, record=True)
    console.print(trial_table(summarise(study)))
    return console.export_text()


@pytest.mark.parametrize("n_complete", [0, 1, 2, 5])
def test_any_number_of_trials_can_be_shown(n_complete):
    trials = [(TrialState.COMPLETE, [float(n)], {}) for n in range(n_complete)]
    study = study_of(*trials, (TrialState.FAIL, None, {"error": "nan"}))
    text = printed(study)
    assert f"{n_complete} complete" in text or n_complete == 0
    assert "1 failed" in text
    assert len(search_plot(study).axes) >= 4


def test_the_best_trial_is_the_first_row_and_a_repeated_one_is_named():
    study = study_of(
        (TrialState.COMPLETE, [1.0], {}),
        (TrialState.COMPLETE, [3.0], {}),
        (TrialState.COMPLETE, [3.0], {"same_as": 1}),
        (TrialState.COMPLETE, [2.0], {}),
    )
    summary = summarise(study)
    assert [row["trial"] for row in summary["trials"] if row["is_best"]] == [1]
    assert "best +3.00 % (trial 1" in summary["best"]
    text = printed(study)
    assert "= trial 1" in text
    assert text.index("+3.00") < text.index("+2.00") < text.index("+1.00")


def test_a_trial_of_several_seeds_is_one_line_with_their_mean_number_and_spread():
    study = study_of(
        (TrialState.PRUNED, None, {BY_SEED: [1.0, 2.0]}),
        (TrialState.COMPLETE, [4.0], {BY_SEED: [3.0, 4.0, 5.0]}),
        (TrialState.RUNNING, None, {BY_SEED: [2.5]}),
    )
    note_measure(study, "loss")
    rows = summarise(study)["trials"]
    assert [row["loss"] for row in rows] == [1.5, 4.0, 2.5]
    assert {row["delta_m"] for row in rows} == {None}
    text = printed(study)
    assert "loss %" in text
    assert "delta_m" not in text
    assert "seeds" in text
    for shown in ("+4.00 ± 1.00", "+1.50 ± 0.71", "+2.50"):
        assert text.count(shown) == 1
    ylabels = {axes.get_ylabel() for axes in search_plot(study).axes}
    assert "validation gain in loss, %" in ylabels
    assert "validation delta_m, %" not in ylabels


def test_a_search_of_one_seed_shows_no_seeds():
    assert "seeds" not in printed(study_of((TrialState.COMPLETE, [1.0], {})))


def test_a_running_trial_says_at_which_seed_it_is():
    console = Console(force_terminal=True, width=200, file=io.StringIO())
    study = study_of((TrialState.RUNNING, None, {BY_SEED: [1.0, 2.0]}))
    with shown("seeds", console) as display:
        display.show(study.trials, study.directions)
    assert "seed 2: +1.50 %" in console.file.getvalue()


def test_a_summary_is_read_as_it_was_written_and_an_earlier_one_too(tmp_path):
    study = study_of((TrialState.COMPLETE, [4.0], {BY_SEED: [3.0, 5.0]}))
    summary = summarise(study)
    write_summary(summary, tmp_path / "search.json")
    assert read_summary(tmp_path / "search.json") == summary
    earlier = {key: value for key, value in summary.items() if key != "measure"}
    for row in earlier["trials"]:
        del row["by_seed"], row["loss"]
    write_summary(earlier, tmp_path / "search.json")
    found = read_summary(tmp_path / "search.json")
    assert found["measure"] == "delta_m"
    assert [row["delta_m"] for row in found["trials"]] == [4.0]


def test_a_front_marks_every_trial_that_none_beats():
    study = study_of(
        (TrialState.COMPLETE, [1.0, 10.0], {}),
        (TrialState.COMPLETE, [2.0, 20.0], {}),
        (TrialState.COMPLETE, [0.5, 30.0], {}),
        directions=("maximize", "minimize"),
    )
    assert [row["is_best"] for row in summarise(study)["trials"]] == [True, True, False]
    search_plot(study)


def test_a_trial_that_died_while_drawing_is_described():
    choices = {"split.grouping": optuna.distributions.CategoricalDistribution(["colour"])}
    study = optuna.create_study()
    dead = optuna.trial.create_trial(
        state=TrialState.FAIL, params={"split.grouping": "colour"}, distributions=choices
    )
    study.add_trial(dead)
    assert "?, k = ?, colour" in printed(study)


def test_names_are_no_markup():
    study = optuna.create_study(study_name="odd [/red] [b]name", direction="maximize")
    assert "odd [/red] [b]name" in printed(study)
    console = Console(width=200, record=True)
    with shown("odd [/red] [b]name", console) as display:
        display.show([], study.directions)
        study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"same_as": "[/red]"}))
        display.show(study.trials, study.directions)
    assert "[/red]" in console.export_text()


def test_a_queued_trial_says_what_it_will_try():
    study = optuna.create_study(study_name="shown", direction="maximize")
    study.enqueue_trial({"split.rule": "count", "split.k": 25})
    (row,) = summarise(study)["trials"]
    assert (row["state"], row["split"]) == ("waiting", "count, k = 25")


def test_braces_in_a_name_are_shown_on_a_terminal():
    console = Console(force_terminal=True, width=200, file=io.StringIO())
    with shown("we{0}ird {x", console) as display:
        display.show([], [StudyDirection.MAXIMIZE])
    assert "search we{0}ird {x" in console.file.getvalue()


def test_a_study_of_somebody_elses_can_be_shown():
    study = optuna.create_study(study_name="theirs", directions=["minimize", "maximize"])
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 2.0), n_trials=5)
    assert "x = 0." in printed(study)
    search_plot(study)


def test_every_rule_is_drawn_in_its_own_colour():
    rules = list(RULES)
    choices = {**CHOICES, "split.rule": optuna.distributions.CategoricalDistribution(rules)}
    study = optuna.create_study(direction="maximize")
    for rule in rules:
        params = {"split.rule": rule, "split.k": 3}
        study.add_trial(optuna.trial.create_trial(value=1.0, params=params, distributions=choices))
    lines = search_plot(study).axes[0].lines
    assert len({line.get_color() for line in lines}) == len(rules)


def test_pareto():
    assert pareto([(3, 1.0), (1, 0.5), (2, 2.0), (1, 0.7), (4, 2.0)]) == [(1, 0.7), (2, 2.0)]
