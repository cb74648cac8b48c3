"""Searches in this process, on SQLite: what is trained, what is not, and what is taken up again."""

import itertools
import tomllib
import warnings
from collections import Counter
from dataclasses import replace

import optuna
import pytest
import torch
from optuna.trial import TrialState

import recon_search as rs
from recon_search import owners
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, TrainingError
from recon_search.owners import owner
from recon_search.recipe import parse_recipe
from recon_search.runs import deadline, trainer
from recon_search.runs.deadline import Deadline, OutOfTime
from recon_search.runs.listener import Listener
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.trainer import train
from recon_search.runs.training import Training
from recon_search.search import storage as storage_module
from recon_search.search.ending import Ending
from recon_search.search.sampling import make_pruner
from recon_search.search.space import draw, first_trials, make_space
from recon_search.search.storage import fail
from recon_search.search.tally import tally
from recon_search.stages import judge, search, trial
from recon_search.stages.judge import choose_best
from recon_search.stages.search import work
from recon_search.stages.split import check_scores, choose_split
from recon_search.stages.study import Job, check_study, default_url, find_study
from recon_search.views.trials import describe_outcome, summarise
from tests.stages.recipes import TINY
from tests.stages.scores import TASKS, noisy_scores

GONE = owner().rpartition(":")[0] + ":999999999"


def make_job(out, epochs=1, **search_settings):
    raw = tomllib.loads(TINY)
    raw["train"]["epochs"] = epochs
    raw["data"] |= {"train": 64, "validation": 32, "test": 16}
    recipe = parse_recipe(raw | {"search": search_settings})
    out.mkdir(exist_ok=True)
    run = Run(recipe, out)
    return Job(run, noisy_scores(recipe), default_url(out), "study")


@pytest.fixture
def trained(monkeypatch):
    """Trainings that take no time, counted by directory; how well they do hangs on the split."""
    counts = Counter()

    def pretend(training, run, report=None, after_epoch=None):
        key, recipe = training.identity(run), run.recipe
        counts[key] += 1
        quality = 50 if len(training.tasks) == 1 else int(key[:4], 16) / 655.36
        for epoch in range(1, recipe.train.epochs + 1):
            accuracy = quality * epoch / recipe.train.epochs
            metrics = {task: {"accuracy": accuracy} for task in training.tasks}
            if after_epoch is not None:
                after_epoch({"epoch": epoch, "validation": metrics})
        n_layers = 0 if training.split is None else len(training.split.layers)
        tasks, size = training.tasks, (1000 + n_layers, 10 + n_layers)
        return Result(tasks, "", training.seed, *size, metrics, 0.0, training.directory(run))

    monkeypatch.setattr(trainer, "train", pretend)
    return counts


def dead_trial(job):
    """A running trial whose process is gone."""
    study = search.join(job).study
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Optuna's optimize is the one to send heartbeats
        dead = study.ask()
    dead.set_user_attr("owner", GONE)
    return dead


def finished(job):
    return find_study(str(job.run.out), None).get_trials(deepcopy=False)


def test_a_search_ends_with_its_trials_and_going_on_adds_only_what_is_missing(tmp_path, trained):
    job = make_job(tmp_path / "out", trials=4, pruner="none")
    work(job)
    before = finished(job)
    assert tally(before).spent == 4
    assert set(trained.values()) == {1}, "every split and every baseline once"

    work(job)
    assert len(finished(job)) == len(before), "the same number again: nothing to do"

    more = make_job(tmp_path / "out", trials=6, pruner="none")
    work(more)
    assert tally(finished(more)).spent == 6
    assert set(trained.values()) == {1}


def test_a_search_in_many_short_pieces_has_the_trials_of_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    """By a clock that goes on by a second whenever somebody looks at it."""
    ticks = itertools.count()
    monkeypatch.setattr(deadline, "now", lambda: float(next(ticks)))
    whole, cut = (make_job(tmp_path / name, epochs=2, trials=3) for name in ("whole", "cut"))
    work(whole)
    n_pieces = 0
    while tally(trials := finished(cut) if n_pieces else []).spent < 3:
        n_pieces += 1
        assert n_pieces < 40
        piece = replace(cut, run=replace(cut.run, deadline=Deadline.after(6 / 3600)))
        work(piece)
        assert search.is_cut_short(piece, search.join(piece)) == (tally(finished(cut)).spent < 3)

    def told(trials):
        names = ("number", "state", "values", "params", "intermediate_values")
        return [
            ([getattr(each, name) for name in names], each.user_attrs.get("layers"))
            for each in trials
        ]

    assert n_pieces > 3
    assert told(trials) == told(finished(whole))


def test_a_search_out_of_time_says_how_many_trials_are_done(tmp_path, trained, monkeypatch):
    job = make_job(tmp_path / "out", trials=4, pruner="none")
    monkeypatch.setattr(judge, "search", lambda *_: None)  # whose workers have had no time
    run = replace(job.run, deadline=Deadline.after(1))
    with pytest.raises(OutOfTime, match="0 of 4 trials are done, the best split is not judged yet"):
        judge.search_and_judge(run, job.scores)
    assert not (tmp_path / "out/comparison.json").exists()


def test_a_search_ends_for_all_workers_where_nothing_better_is_likely(
    tmp_path, trained, monkeypatch
):
    gains = iter([None, 0.9, 0.4])
    monkeypatch.setattr(search, "likely_gain", lambda trials: next(gains))
    settings = {"trials": 9, "pruner": "none", "terminator": True}
    job = make_job(tmp_path / "out", **settings)
    work(job)
    assert tally(finished(job)).complete == 3, "the third look is the last"
    joined = search.join(job)
    assert search.find_ending(job, joined) == Ending(3, 0.4)
    late = replace(job, run=replace(job.run, deadline=Deadline.after(1)))
    assert not search.is_cut_short(late, joined), "it is over, not out of time"
    n_before = len(finished(job))
    work(job, index=1)  # another worker, which asks nobody
    assert len(finished(job)) == n_before
    summary = summarise(joined.study)
    assert "ended: after 3 complete trials no split is likely" in describe_outcome(summary)

    going_on = make_job(tmp_path / "out", **settings | {"terminator": False, "trials": 5})
    work(going_on)
    assert tally(finished(job)).spent == 5


def test_equal_splits_are_trained_once(tmp_path, trained):
    space = {"split.k": [2], "split.rule": ["count", "projection"], "split.threshold": [0.0]}
    job = make_job(tmp_path / "out", trials=5, space=space)
    work(job)
    trials = finished(job)
    now = tally(trials)
    assert now.is_exhausted
    assert now.complete <= 2
    assert now.deduplicated >= 30
    values = {t.user_attrs["training"]: t.value for t in trials if "same_as" not in t.user_attrs}
    for one in trials:
        if "same_as" in one.user_attrs:
            assert one.value == values[one.user_attrs["training"]]
    assert len(trained) == len(values) + len(TASKS)


def test_a_trial_whose_process_is_gone_is_begun_anew_at_once(tmp_path, trained):
    job = make_job(tmp_path / "out", trials=2, pruner="none")
    dead = dead_trial(job)
    dead.suggest_int("split.k", 0, 43)
    work(job)
    trials = finished(job)
    assert trials[dead.number].state == TrialState.FAIL
    again = next(t for t in trials if t.user_attrs.get("retry_of") == dead.number)
    assert again.state == TrialState.COMPLETE
    assert again.params["split.k"] == dead.params["split.k"]
    assert tally(trials).spent == 2
    assert tally(trials).retried == 1


def test_a_trial_that_was_given_up_meanwhile_is_left_and_the_worker_goes_on(tmp_path, monkeypatch):
    job = make_job(tmp_path / "out", trials=2, pruner="none")
    study = search.join(job).study
    given_up = []

    def slow(training, run, report=None, after_epoch=None):
        def losing(record):
            if not given_up:  # as a machine does that has missed this one's heartbeats
                running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))[0]
                given_up.append(running.number)
                assert fail(study, running)
                storage_module.retry(study, running, retries=3)
            after_epoch(record)

        watch = losing if after_epoch is not None else None
        return train(training, run, report, watch)

    monkeypatch.setattr(trainer, "train", slow)
    work(job)
    trials = finished(job)
    assert trials[given_up[0]].state == TrialState.FAIL
    assert tally(trials).spent == 2
    assert any(t.user_attrs.get("retry_of") == given_up[0] for t in trials)


def test_a_worker_that_waits_for_a_baseline_takes_it_up_when_the_other_dies(
    tmp_path, trained, monkeypatch
):
    job = make_job(tmp_path / "out", trials=2, pruner="none")
    recipe = job.run.recipe
    alone = Training(TASKS[:1], None, recipe.train, recipe.backbone, recipe.seed)
    key = alone.identity(job.run)
    search.join(job).ledger.claim(key, dead_trial(job).number, lambda _: True)
    naps = []

    def nap(seconds):
        naps.append(seconds)
        assert len(naps) < 20, "it would wait for ever"

    monkeypatch.setattr(search, "recover", lambda *_: None)  # the other dies after this
    monkeypatch.setattr(trial.time, "sleep", nap)
    work(job)
    assert naps
    assert trained[key] == 1
    assert tally(finished(job)).complete == 2


def test_a_result_whose_trial_died_before_it_could_end_with_it_counts_once(tmp_path, trained):
    space = {"split.k": [2], "split.rule": ["count"], "split.threshold": [0.0]}
    job = make_job(tmp_path / "out", trials=3, space=space)
    dead = dead_trial(job)
    joined = search.join(job)
    ledger = joined.ledger
    objective = search.objective_of(job, joined)
    run, training = objective.plan(draw(dead, objective.space))
    key = training.identity(run)
    ledger.claim(key, dead.number, lambda _: True)
    result = {"state": "complete", "values": [5.0], "n_parameters": 1, "flops": 1}
    ledger.finish(key, dead.number, result)
    work(job)
    now = tally(finished(job))
    assert (now.complete, now.retried) == (1, 1)
    assert now.deduplicated >= 30
    assert key not in trained


def test_the_first_guesses_survive_the_worker_that_queues_them(tmp_path, trained):
    job = make_job(tmp_path / "out", trials=1)
    joined = search.join(job)
    study, ledger = joined.study, joined.ledger
    ledger.settle("first trials", {"by": GONE})
    study.enqueue_trial({"split.k": 0}, user_attrs={"guess": 0})
    work(job)
    scores = job.scores
    n_guesses = len(first_trials(job.run.recipe, scores, make_space(job.run.recipe, scores)))
    trials = finished(job)
    assert sorted(t.user_attrs["guess"] for t in trials) == list(range(n_guesses))

    dead_trial(job).set_user_attr("surplus", True)  # as where a retry waits behind it
    search._queue_guesses([{"split.k": 0}] * n_guesses, study, ledger)
    again = [t.user_attrs["guess"] for t in finished(job)[len(trials) :] if "guess" in t.user_attrs]
    assert again == [1]


def test_what_the_first_guesses_leave_open_is_drawn_anew_for_each(tmp_path, trained):
    space = {"train.lr": {"low": 0.01, "high": 0.1}}
    job = make_job(tmp_path / "out", trials=4, pruner="none", space=space)
    work(job)
    rates = [t.params["train.lr"] for t in finished(job) if t.params]
    assert len(set(rates)) == len(rates) == 4


def test_something_unforeseen_ends_the_worker_in_one_line_and_the_study_goes_on(
    tmp_path, trained, monkeypatch
):
    job = make_job(tmp_path / "out", trials=2, pruner="none")
    pretend = trainer.train

    def fall(training, *arguments):
        if len(training.tasks) > 1:
            raise ValueError("Expected more than 1 value\nper channel")
        return pretend(training, *arguments)

    monkeypatch.setattr(trainer, "train", fall)
    with pytest.raises(TrainingError, match="met ValueError: Expected more than 1 value per chan"):
        work(job)
    monkeypatch.setattr(trainer, "train", pretend)
    work(job)
    assert tally(finished(job)).complete == 2
    assert set(trained.values()) == {1}


def test_a_baseline_that_cannot_be_trained_ends_the_search(tmp_path, monkeypatch):
    def diverge(training, *_):
        raise TrainingError(f"Every loss must be finite, of {training.tasks}")

    monkeypatch.setattr(trainer, "train", diverge)
    with pytest.raises(TrainingError, match=r"must be finite, of \('left'"):
        work(make_job(tmp_path / "out", trials=3))


def test_a_split_that_cannot_be_trained_fails_once(tmp_path, trained, monkeypatch):
    space = {"split.k": [2], "split.rule": ["count"], "split.threshold": [0.0]}
    job = make_job(tmp_path / "out", trials=3, space=space)
    pretend = trainer.train

    def diverge(training, *arguments):
        if len(training.tasks) > 1:
            raise TrainingError("no")
        return pretend(training, *arguments)

    monkeypatch.setattr(trainer, "train", diverge)
    work(job)
    now = tally(finished(job))
    assert now.failed == 1
    assert now.is_exhausted


def test_a_front_weighs_validation_delta_m_against_parameters_within_the_limit(tmp_path, trained):
    job = make_job(tmp_path / "out", trials=12, max_params="1.1x", objective="delta_m-parameters")
    work(job)
    trials = [t for t in finished(job) if t.state == TrialState.COMPLETE]
    sizes = job.scores.metadata["layer_infos"]
    sizes = {info["name"]: info["n_parameters"] for info in sizes}
    for one in trials:
        quality = int(one.user_attrs["training"][:4], 16) / 655.36
        assert one.values[0] == pytest.approx(100 * (quality - 50) / 50)
        assert one.values[1] == 1000 + len(one.user_attrs["layers"])
        added = sum(sizes[layer] for layer in one.user_attrs["layers"])
        assert added <= 0.1 * sum(sizes.values())
    assert len({t.values[1] for t in trials}) > 1
    assert choose_best(find_study(str(job.run.out), None)).values[0] == max(
        t.values[0] for t in trials
    )


def test_trials_can_start_from_the_shared_network(tmp_path):
    job = make_job(tmp_path / "out", trials=1, start="shared")
    before = job.run.recipe
    recipe = before.model_copy(
        update={"train": before.train.model_copy(update={"lr": 1e-12, "epochs": 1})}
    )
    run = job.run.with_recipe(recipe)
    joint = Training(TASKS, None, before.train, recipe.backbone, 0, test=False)
    split = choose_split(recipe, noisy_scores(recipe))
    scratch = Training(TASKS, split, recipe.train, recipe.backbone, 0, test=False)
    started = replace(scratch, start=joint)
    found = train(started, run)
    assert found.directory != train(scratch, run).directory

    first, second = (rs.load(r.directory / "model") for r in (train(joint, run), found))
    for task in TASKS:
        shared = first.backbone.task_state_dict(task)
        for name, value in second.backbone.task_state_dict(task).items():
            if "running" not in name and "tracked" not in name:
                torch.testing.assert_close(value, shared[name])


def test_hopeless_trials_are_pruned(tmp_path, trained):
    job = make_job(tmp_path / "out", trials=12, pruner="halving", epochs=9)
    work(job)
    trials = [t for t in finished(job) if "same_as" not in t.user_attrs]
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert pruned
    assert complete
    assert all(t.user_attrs["epochs"] < 9 for t in pruned)
    assert all(t.user_attrs["epochs"] == 9 for t in complete)
    assert max(t.value for t in complete) > max(max(t.intermediate_values.values()) for t in pruned)


@pytest.mark.parametrize(("pruner", "is_pruned"), [("none", True), ("halving", False)])
def test_patience_alone_prunes_and_holds_a_pruner_back(tmp_path, pruner, is_pruned):
    recipe = make_job(tmp_path / "out", pruner=pruner, patience=2).run.recipe
    study = optuna.create_study(direction="maximize", pruner=make_pruner(recipe))
    one = study.ask()
    for epoch, value in enumerate([3.0, 1.0, 1.0, 1.0], start=1):
        assert not one.should_prune()
        one.report(value, epoch)
    assert one.should_prune() == is_pruned


def test_what_is_judged_is_what_was_trained(tmp_path, trained, monkeypatch):
    space = {"split.k": [3], "split.rule": ["count"], "train.lr": {"low": 1e-12, "high": 2e-12}}
    job = make_job(tmp_path / "out", trials=1, space=space)
    study = search.join(job).study
    exact = -0.3 + 2 * 0.05
    assert exact != -0.2
    study.enqueue_trial({"split.threshold": exact, "train.lr": 1.5e-12})
    work(job)
    judged = []
    monkeypatch.setattr(judge, "compare", lambda run, *_: judged.append(run.recipe))
    judge.judge(job, search.join(job))
    assert judged[0].split.threshold == -0.2
    assert judged[0].train.lr == 1.5e-12


def test_a_training_that_cannot_go_on_fails_its_trial_and_is_not_tried_again(tmp_path):
    job = make_job(tmp_path / "out", trials=3, space={"train.lr": [1e30]})
    work(job)
    trials = finished(job)
    assert tally(trials).failed == 3
    errors = [t.user_attrs["error"] for t in trials if "error" in t.user_attrs]
    assert len(errors) >= 3
    assert all("Every loss must be finite" in error for error in errors)
    with pytest.raises(TrainingError, match=r"one completed trial.*Every loss must be finite"):
        choose_best(find_study(str(job.run.out), None))


def test_a_study_of_another_recipe_or_probe_is_not_joined(tmp_path):
    job = make_job(tmp_path / "out", trials=1)
    search.join(job)
    other = make_job(tmp_path / "out", trials=1, start="shared")
    with pytest.raises(RecipeError, match="begun with another recipe"):
        search.join(other)
    with pytest.raises(RecipeError, match=r"objectives maximize, the recipe .* maximize, minimize"):
        search.join(make_job(tmp_path / "out", trials=1, objective="delta_m-flops"))


def never(*_):
    raise AssertionError("nothing may be trained before a study is refused")


@pytest.mark.parametrize("is_given", [True, False])
@pytest.mark.parametrize(
    "changed",
    [
        {"space": {"split.rule": ["count", "projection"]}},
        {"space": {"split.k": {"low": 0, "high": 6}, "split.rule": ["count"]}},
        {"seed": 4},
        {"objective": "delta_m-parameters"},
    ],
)
def test_another_search_in_the_same_study_is_refused_before_the_probe(
    tmp_path, monkeypatch, changed, is_given
):
    before = {"trials": 1, "space": {"split.rule": ["count"]}}
    out = tmp_path / "out"
    search.join(make_job(out, **before))
    other = make_job(out, **before | changed)
    monkeypatch.setattr(judge, "probe", never)
    with pytest.raises(RecipeError, match=r"Study 'study' (was begun|has the objectives)"):
        judge.search_and_judge(other.run, other.scores if is_given else None, study="study")
    check_study(make_job(out, **before | {"trials": 9}).run, None, "study")
    check_study(other.run, None, "another study")


def test_other_scores_are_refused_with_the_rest(tmp_path):
    job = make_job(tmp_path / "out", trials=1)
    search.join(job)
    other = ConflictScores(job.scores.layers, job.scores.tasks, job.scores.metadata)
    check_study(job.run, job.url, job.study, job.scores)
    with pytest.raises(RecipeError, match="begun with another scores"):
        check_study(job.run, job.url, job.study, other)


def test_a_study_is_looked_for_without_making_a_file(tmp_path):
    job = make_job(tmp_path / "out", trials=1)
    check_study(job.run, None, job.study)
    assert list(job.run.out.iterdir()) == []


def test_a_database_that_may_not_be_written_is_one_line_and_can_be_shown(tmp_path, trained):
    job = make_job(tmp_path / "out", trials=1)
    work(job)
    url = f"sqlite:///file:{job.run.out / 'search.db'}?mode=ro&uri=true"
    assert find_study("study", url).get_trials(states=(TrialState.COMPLETE,))
    with pytest.raises(RecipeError, match=r"mode=ro.* says: .*readonly database"):
        search.join(replace(job, url=url, study="other"))


@pytest.mark.parametrize(
    ("direction", "message"),
    [("maximize", "trials of something else"), ("minimize", "objectives minimize")],
)
def test_a_study_of_somebody_elses_is_not_joined(tmp_path, direction, message):
    job = make_job(tmp_path / "out", trials=1)
    theirs = optuna.create_study(study_name=job.study, storage=job.url, direction=direction)
    theirs.add_trial(optuna.trial.create_trial(value=99.0))
    with pytest.raises(RecipeError, match=message):
        search.join(job)


@pytest.mark.parametrize("other", [{"tasks": ("a", "b")}, {"layers": ["conv1", "fc"]}])
def test_scores_of_other_tasks_or_layers_are_refused(tmp_path, other):
    job = make_job(tmp_path / "out", trials=1)
    known = job.scores
    wanted = {"layers": known.layers, "tasks": known.tasks, "metadata": known.metadata} | other
    with pytest.raises(RecipeError, match="--scores must be of the recipe's tasks"):
        check_scores(ConflictScores(**wanted), job.run)


def test_scores_that_the_study_was_not_begun_with_do_not_replace_the_runs(tmp_path, trained):
    job = make_job(tmp_path / "out", trials=1)
    work(job)
    job.scores.save(job.run.out / "scores.safetensors")
    before = (job.run.out / "scores.safetensors").read_bytes()
    with pytest.raises(RecipeError, match="begun with another scores"):
        judge.search_and_judge(job.run, job.scores + job.scores, study="study")
    assert (job.run.out / "scores.safetensors").read_bytes() == before


def test_the_host_that_judges_may_be_started_anew(tmp_path, monkeypatch):
    job = make_job(tmp_path / "out", trials=1)
    said = []
    listener = Listener()
    listener.say = said.append
    run, joined = replace(job.run, listener=listener), search.join(job)
    assert judge._is_first_to_judge(run, joined)
    monkeypatch.setattr(owners.uuid, "getnode", lambda: 1)  # as `machine` names it
    assert judge._is_first_to_judge(run, joined)
    monkeypatch.setattr(judge.socket, "gethostname", lambda: "elsewhere")
    assert not said
    assert not judge._is_first_to_judge(run, joined)
    assert "add --judge to do it here" in said[0]


def test_what_an_earlier_study_judged_is_forgotten_where_none_is_better(tmp_path, trained):
    job = make_job(tmp_path / "out", trials=1)  # the first guess is no split
    work(job)
    out = job.run.out
    (out / "comparison.json").write_text("{}")
    (out / "model").mkdir()
    assert judge.judge(job, search.join(job)) is None
    assert not (out / "comparison.json").exists()
    assert not (out / "model").exists()


def test_the_budget_of_the_split_is_that_of_its_search(tmp_path):
    job = make_job(tmp_path / "out", trials=1)
    raw = job.run.recipe.model_dump(mode="json")
    raw["split"] |= {"k": None, "max_params": "1.05x"}
    job = replace(job, run=job.run.with_recipe(parse_recipe(raw)))
    scores = job.scores
    objective = search.objective_of(job, search.join(job))
    split = objective.plan({"split.rule": "count", "split.k": 43})[1].split
    sizes = {each["name"]: each["n_parameters"] for each in scores.metadata["layer_infos"]}
    assert 0 < sum(sizes[name] for name in split.layers) <= 0.05 * sum(sizes.values())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("no url", "must be a database URL"),
        ("sqlite:////no/such/folder/search.db", "must be a database that answers"),
        ("postgresql+psycopg://nobody:secret@127.0.0.1:1/none", "must be a database that answers"),
        ("oracle+cx_oracle://host/none", "needs the database's driver"),
        ("postgres://user:secret@host/none", r"must be a database URL, got 'postgres://user:.*@h"),
        ("postgresql://user:secret@host:port/none", "must be a database URL"),
        ("postgresql://user:is/secret@host/none", "must be a database"),
        ("postgres://host/none?password=secret", "must be a database URL"),
    ],
)
def test_a_database_that_cannot_be_is_one_clear_line(tmp_path, url, message):
    job = make_job(tmp_path / "out")
    with pytest.raises(RecipeError, match=message) as caught:
        search.join(replace(job, url=url))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
