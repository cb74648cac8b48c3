"""Searches whose trials have several seeds: what is trained of each, and what the value is."""

import statistics
import tomllib
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState

from recon_search import identity
from recon_search.errors import RecipeError, TrainingError
from recon_search.owners import owner
from recon_search.recipe import parse_recipe
from recon_search.runs import trainer
from recon_search.runs.deadline import OutOfTime
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.search.measure import measure_of
from recon_search.search.rungs import BY_SEED
from recon_search.search.tally import tally
from recon_search.stages import judge, search, trial
from recon_search.stages.search import objective_of, work
from recon_search.stages.study import Job, default_url, find_study
from recon_search.views.trials import summarise
from tests.stages.recipes import TINY
from tests.stages.scores import TASKS, noisy_scores

GONE = owner().rpartition(":")[0] + ":999999999"
SPACE = {"split.rule": ["count"], "split.threshold": [0.0]}
LUCK = (0.0, 4.0, -3.0, 1.5)
"""What a seed adds to every split."""


class Died(BaseException):
    """The process is gone: nothing catches this."""


def make_job(out, epochs=2, **settings):
    raw = tomllib.loads(TINY)
    raw["train"]["epochs"] = epochs
    recipe = parse_recipe(raw | {"search": {"space": SPACE, **settings}})
    out.mkdir(exist_ok=True)
    run = Run(recipe, out)
    return Job(run, noisy_scores(recipe), default_url(out), "study")


def worth(n_layers, seed):
    """Accuracy of a network: the more layers the better up to 20; seeds have luck of their own."""
    wobble = (n_layers * 7 + seed * 5) % 4 / 4
    return 60 - abs(n_layers - 20) + LUCK[seed] + wobble


@pytest.fixture
def trained(monkeypatch):
    """Trainings that take no time and are cached, counted by number of layers and seed."""
    counts = Counter()

    def pretend(training, run, report=None, after_epoch=None):
        n_layers = 0 if training.split is None else len(training.split.layers)
        is_single = len(training.tasks) == 1
        key = (training.tasks[0] if is_single else n_layers, training.seed)
        if not counts[key]:
            pretend.before(key)
        counts[key] = 1
        accuracy = 50.0 if is_single else worth(n_layers, training.seed)
        metrics = {task: {"accuracy": accuracy, "loss": 100 - accuracy} for task in training.tasks}
        for epoch in range(1, run.recipe.train.epochs + 1):
            if after_epoch is not None:
                after_epoch({"epoch": epoch, "validation": metrics})
        sizes = (1000 + n_layers, 10 + n_layers)
        return Result(
            training.tasks, "", training.seed, *sizes, metrics, 0.0, training.directory(run)
        )

    pretend.before = lambda key: None
    monkeypatch.setattr(trainer, "train", pretend)
    counts.pretend = pretend
    return counts


def finished(job):
    return find_study(str(job.run.out), None).get_trials(deepcopy=False)


def own(trials):
    """Trials that were the first with their split."""
    return [each for each in trials if "same_as" not in each.user_attrs]


def seeds_trained(trained, n_layers):
    return sorted(seed for key, seed in trained if key == n_layers)


def told(trials):
    return [
        (t.state, t.values, t.params, t.intermediate_values, t.user_attrs[BY_SEED])
        for t in own(trials)
    ]


@pytest.mark.parametrize("objective", ["delta_m", "loss", "delta_m-parameters"])
def test_the_value_of_a_trial_is_the_mean_over_its_seeds(tmp_path, trained, objective):
    job = make_job(tmp_path / "out", trials=4, seeds=3, pruner="none", objective=objective)
    work(job)
    trials = own(finished(job))
    assert len(trials) == 4
    for one in trials:
        n_layers = len(one.user_attrs["layers"])
        gains = [2 * (worth(n_layers, seed) - 50) for seed in range(3)]  # of 50: both measures
        assert one.user_attrs[BY_SEED] == pytest.approx(gains)
        assert one.values[0] == pytest.approx(statistics.fmean(gains))
        assert seeds_trained(trained, n_layers) == [0, 1, 2]
        assert one.user_attrs["epochs"] == 6, "of all seeds together"
    assert [seeds_trained(trained, task) for task in TASKS] == [[0], [0]], "one yardstick"
    study = find_study(str(job.run.out), None)
    assert measure_of(study) == summarise(study)["measure"]
    assert measure_of(study) == ("loss" if objective == "loss" else "delta_m")


@pytest.mark.parametrize("pruner", ["halving", "wilcoxon"])
def test_a_trial_that_is_pruned_after_n_seeds_has_n_trainings(tmp_path, trained, pruner):
    job = make_job(tmp_path / "out", trials=14, seeds=4, pruner=pruner)
    work(job)
    trials = own(finished(job))
    pruned = [each for each in trials if each.state == TrialState.PRUNED]
    complete = [each for each in trials if each.state == TrialState.COMPLETE]
    assert pruned
    assert len(pruned) + len(complete) == 14
    for one in trials:
        n = len(one.user_attrs[BY_SEED])
        assert seeds_trained(trained, len(one.user_attrs["layers"])) == list(range(n))
        assert list(one.intermediate_values) == list(range(1, n + 1))
        assert one.user_attrs["epochs"] == 2 * n
    assert all(len(each.user_attrs[BY_SEED]) == 4 for each in complete)
    lengths = {len(each.user_attrs[BY_SEED]) for each in pruned}
    assert lengths <= ({1, 2} if pruner == "halving" else {2, 3}), "4 seeds are complete"
    best = max(complete, key=lambda each: each.value).user_attrs[BY_SEED]
    for one in pruned:  # at the same seeds, up to what the luck of single seeds may hide
        values = one.user_attrs[BY_SEED]
        assert statistics.fmean(best[: len(values)]) > statistics.fmean(values) - 2


def test_what_is_reported_is_the_mean_so_far_or_for_a_paired_test_each_seed(tmp_path, trained):
    means = make_job(tmp_path / "means", trials=2, seeds=3, pruner="none")
    pairs = make_job(tmp_path / "pairs", trials=2, seeds=3, pruner="wilcoxon")
    for job in (means, pairs):
        work(job)
    (mean, *_), (pair, *_) = finished(means), finished(pairs)
    values = mean.user_attrs[BY_SEED]
    assert pair.user_attrs[BY_SEED] == values
    assert list(pair.intermediate_values.values()) == values
    assert list(mean.intermediate_values.values()) == pytest.approx(
        [statistics.fmean(values[:n]) for n in (1, 2, 3)]
    )


@pytest.mark.parametrize("pruner", ["halving", "wilcoxon"])
def test_equal_splits_are_trained_once_over_all_their_seeds(tmp_path, trained, pruner):
    space = SPACE | {"split.k": [1, 20, 30, 43]}
    job = make_job(tmp_path / "out", trials=9, seeds=3, pruner=pruner, space=space)
    work(job)
    trials = finished(job)
    assert tally(trials).is_exhausted
    firsts = {each.number: each for each in own(trials)}
    assert len(firsts) == 4
    repeated = [each for each in trials if "same_as" in each.user_attrs]
    for one in repeated:
        first = firsts[one.user_attrs["same_as"]]
        assert (one.state, one.values) == (first.state, first.values)
        assert one.intermediate_values == first.intermediate_values
        assert one.user_attrs[BY_SEED] == first.user_attrs[BY_SEED]


@pytest.mark.parametrize("pruner", ["halving", "wilcoxon"])
def test_a_search_that_runs_out_of_time_between_seeds_goes_on_as_it_would_have(
    tmp_path, trained, pruner
):
    whole, cut = (
        make_job(tmp_path / name, trials=9, seeds=4, pruner=pruner) for name in ("whole", "cut")
    )
    work(whole)
    expected = dict(trained)
    trained.clear()
    left = [0]

    def in_time(key):
        if not left[0]:
            raise OutOfTime
        left[0] -= 1

    trained.pretend.before = in_time
    n_pieces = 0
    while not n_pieces or tally(finished(cut)).spent < 9:
        n_pieces += 1
        left[0] = 3
        work(cut)
        assert n_pieces < 40
    assert n_pieces > 4
    assert dict(trained) == expected
    assert told(finished(cut)) == told(finished(whole))


def test_a_worker_that_dies_between_seeds_counts_once_and_trains_none_twice(tmp_path, trained):
    whole, job = (make_job(tmp_path / name, trials=5, seeds=3, pruner="none") for name in "ab")
    work(whole)
    expected = dict(trained)
    trained.clear()

    def die(key):
        if key == (0, 2):
            raise Died

    trained.pretend.before = die
    with pytest.raises(Died):
        work(job)
    (dead,) = [each for each in finished(job) if each.state == TrialState.RUNNING]
    assert len(dead.user_attrs[BY_SEED]) == 2
    storage = search.join(job).storage
    storage.set_trial_user_attr(dead._trial_id, "owner", GONE)
    trained.pretend.before = lambda key: None
    work(job)
    now = tally(finished(job))
    assert (now.spent, now.retried) == (5, 1)
    again = next(t for t in finished(job) if t.user_attrs.get("retry_of") == dead.number)
    assert again.user_attrs[BY_SEED][:2] == dead.user_attrs[BY_SEED]
    assert seeds_trained(trained, 0) == [0, 1, 2]
    assert all(expected[key] == n for key, n in trained.items() if key in expected)


def test_two_workers_in_the_midst_of_their_seeds_share_baselines_and_train_no_split_twice(
    tmp_path, trained
):
    space = SPACE | {"split.k": [0, 20]}
    job = make_job(tmp_path / "out", trials=2, seeds=3, pruner="halving", space=space)
    first, second = search.join(job), search.join(job)
    seen = Counter()

    def meanwhile(key):
        seen[key] += 1
        if key == (0, 1):  # the first is at its second seed: the other takes the same, and another
            for k in (0, 20):
                second.study.enqueue_trial({"split.k": k})
                other = objective_of(job, second)
                second.study.optimize(other, n_trials=1, catch=(trial.NotNeeded,))

    trained.pretend.before = meanwhile
    first.study.enqueue_trial({"split.k": 0})
    first.study.optimize(objective_of(job, first), n_trials=1)
    begun, same, better = finished(job)
    assert same.user_attrs["same_as"] == begun.number
    assert same.state == TrialState.FAIL, "it need not wait"
    assert better.state == TrialState.COMPLETE
    assert set(seen.values()) == {1}
    assert begun.state == TrialState.PRUNED, "by what the other has told meanwhile"
    assert begun.user_attrs[BY_SEED] == pytest.approx([2 * (worth(0, s) - 50) for s in (0, 1)])


def test_a_seed_that_cannot_be_trained_fails_its_trial_and_not_the_others(tmp_path, trained):
    def fail(key):
        if key == (0, 1):
            raise TrainingError("Every loss must be finite.")

    trained.pretend.before = fail
    job = make_job(tmp_path / "out", trials=3, seeds=3, pruner="none")
    work(job)
    (failed,) = [each for each in finished(job) if "error" in each.user_attrs]
    assert failed.user_attrs["error"] == "Every loss must be finite."
    assert len(failed.user_attrs[BY_SEED]) == 1
    assert tally(finished(job)).complete == 2


def test_the_best_split_is_judged_over_seeds_that_the_search_has_not_seen(
    tmp_path, trained, monkeypatch
):
    job = make_job(tmp_path / "out", trials=3, seeds=3, pruner="none")
    work(job)
    judged = []
    monkeypatch.setattr(judge, "compare", lambda run, *_: judged.append(run.recipe))
    judge.judge(job, search.join(job))
    assert judged[0].seed == 3
    assert {seed for _, seed in trained} == {0, 1, 2}


def test_one_seed_is_the_search_that_it_was(tmp_path, trained):
    job, plain = (
        make_job(tmp_path / name, trials=6, **kw) for name, kw in (("a", {"seeds": 1}), ("b", {}))
    )
    names = [identity.of_study(each.run.recipe, "", "") for each in (job, plain)]
    assert names[0] == names[1], "a study that was begun before goes on"
    work(job)
    assert not any(BY_SEED in each.user_attrs for each in finished(job))
    assert all(
        row["by_seed"] == [] for row in summarise(find_study(str(job.run.out), None))["trials"]
    )
    other = make_job(tmp_path / "a", trials=6, seeds=2)
    with pytest.raises(RecipeError, match="begun with another recipe"):
        search.join(other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, r"search\.seeds"),
        ({"seeds": 2, "pruner": "hyperband"}, r"2 seeds, not after epochs, as hyperband does: set"),
        ({"seeds": 2, "patience": 1}, "which patience counts: remove it, or set seeds = 1"),
        ({"seeds": 2, "pruner": "wilcoxon"}, "needs seeds = 3 or more, got 2: two to tell"),
        (
            {"seeds": 4, "pruner": "wilcoxon", "objective": "delta_m-flops"},
            "wilcoxon needs an objective that one number says, delta_m or loss, got delta_m-flops",
        ),
        ({"terminator": True, "objective": "delta_m-flops"}, "delta_m or loss, got delta_m-flops"),
        ({"objective": "los"}, r"search\.objective"),
    ],
)
def test_what_cannot_be_together_is_refused_in_one_line(settings, message):
    with pytest.raises(RecipeError, match=message) as caught:
        parse_recipe(tomllib.loads(TINY) | {"search": settings})
    assert "\n" not in str(caught.value)


def test_a_study_that_somebody_else_named_oddly_is_of_delta_m():
    study = optuna.create_study()
    study.set_user_attr("measure", ["loss"])
    assert measure_of(study) == "delta_m"
