"""Scores of two processes that measure apart, in a real group."""

import json
import multiprocessing

import pytest
import torch

from recon_search.conflict.scores import ConflictScores
from tests.conflict import reduction_worker as worker

OWN = ("rank", "counts", "share", "save", "rule", "sum")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("reduction")
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=worker.main, args=(me, folder)) for me in (0, 1)]
    for process in running:
        process.start()
    for process in running:
        process.join(90)
        assert process.exitcode == 0
    return [json.loads((folder / f"{me}.json").read_text()) for me in (0, 1)]


def both():
    """One process that has measured the steps of both."""
    scores = ConflictScores(worker.LAYERS, worker.TASKS)
    for process in (0, 1):
        worker.measure(scores, process)
    return scores


def check(facts, scores):
    assert (facts["rank"], facts["share"]) == (scores.rank(), scores.share())
    assert facts["steps"] == scores.steps
    assert facts["pair steps"] == scores.pair_steps.tolist()


@pytest.mark.parametrize(
    "case", ["reduced", "reduced twice", "reduced often", "resumed", "one idle"]
)
def test_all_processes_hold_equal_scores(found, case):
    assert found[0][case] == found[1][case]
    assert found[0]["own digest"] != found[1]["own digest"]


@pytest.mark.parametrize("case", ["reduced", "reduced twice", "reduced often"])
def test_every_process_step_counts_once_however_often_they_are_reduced(found, case):
    check(found[0][case], both())
    assert both().pair_steps.tolist() == [48, 36, 36]


def test_what_all_have_loaded_counts_once(found):
    check(found[0]["resumed"], both() + both())


def test_a_process_may_have_measured_nothing(found):
    check(found[0]["one idle"], worker.measure(ConflictScores(worker.LAYERS, worker.TASKS), 1))


@pytest.mark.parametrize("reading", OWN)
def test_reading_the_scores_of_one_process_warns_once(found, reading):
    for facts in found:
        messages = facts[f"warned by {reading}"]
        assert len(messages) == 1
        assert "one of 2 processes alone" in messages[0]
        assert "scores.reduce()" in messages[0]
        assert facts[f"warned after {reading}"] == []


def test_another_step_makes_them_ones_own_again(found):
    assert [len(facts["warned after one more step"]) for facts in found] == [1, 1]


@pytest.mark.parametrize("case", ["reduced", "loaded", "replicated"])
def test_equal_scores_do_not_warn(found, case):
    assert [facts[f"warned when {case}"] for facts in found] == [[], []]


def test_replicated_scores_are_left_as_they_are(found):
    assert all(facts["replicated unchanged"] for facts in found)


def test_processes_that_measure_different_things_are_told_so(found):
    for facts in found:
        assert "same layers, tasks and number of probes, found 2 kinds" in facts["refused"]


def test_a_lone_process_has_nothing_to_reduce():
    scores = both()
    before = {name: tensor.clone() for name, tensor in scores.tensors.items()}
    scores.reduce()
    assert all(torch.equal(scores.tensors[name], tensor) for name, tensor in before.items())
