"""Plots of a search: made of its summary alone, whatever has become of the trials."""

import pytest

from recon_search.views.report.trials import search_plots
from recon_search.views.trials import read_summary
from tests.views.report.fakes import fake_search
from tests.views.report.parsing import faults_of, parse

ROW = {"is_best": False, "split": "s", "params": {}, "layers": None, "flops": None}
ROW |= {"n_parameters": None, "same_as": None, "state": "complete", "delta_m": None}


@pytest.fixture
def summary(tmp_path):
    fake_search(tmp_path)
    return read_summary(tmp_path / "search.json")


def test_every_plot_has_its_trials(summary):
    found = search_plots(summary, "n_parameters")
    drawn = {said.split()[2]: parse(f"<h1>x</h1>{plot}") for said, plot in found["plots"]}
    assert not [fault for root in drawn.values() for fault in faults_of(root)]
    titles = [[t.text for t in root.all("title")] for root in drawn.values()]
    assert [len(own) for own in titles] == [7, 4, 7, 9, 0]  # S of `count` alone; pruned, repeated
    assert "trial 7: pruned" in " ".join(titles[3])
    assert "split.k" in found["plots"][-1][1]
    assert [name for name, _ in found["rules"]] == ["count", "projection"]


def test_the_cost_is_that_of_the_objective(summary):
    for cost, words in (("flops", "FLOPs of one image"), ("n_parameters", "parameters")):
        said = [said for said, _ in search_plots(summary, cost)["plots"]]
        assert any(each.startswith(f"delta_m against {words};") for each in said)


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [{"trial": 0, "state": "failed"}],
        [{"trial": 0, "delta_m": float("nan")}],
        [{"trial": 0, "state": "running", "delta_m": 1.0}],
    ],
)
def test_without_a_complete_trial_there_is_no_plot(trials):
    summary = {"measure": "delta_m", "importances": {}, "trials": [ROW | own for own in trials]}
    assert search_plots(summary, "flops") == {"plots": [], "rules": []}


def test_one_trial_of_a_study_of_somebody_elses_is_drawn():
    summary = {
        "measure": "delta_m",
        "importances": {},
        "trials": [ROW | {"trial": 0, "delta_m": 2.0}],
    }
    (only,) = search_plots(summary, "flops")["plots"]
    assert only[0].startswith("As the search went on")
