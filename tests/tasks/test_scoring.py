"""delta_m: laws over drawn metrics, and answers by hand."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_search.tasks.scoring import delta_m, loss_gain, mean_and_deviation, measured
from tests.tasks.contract import LAW

VALUES = st.floats(0.01, 1000)
NAMES = ("accuracy", "error", "iou")


@st.composite
def judged(draw):
    """Metrics of a model and of the single-task models, and the directions of some of them."""
    tasks = [f"t{index}" for index in range(draw(st.integers(1, 4)))]
    model, single = (
        {task: {name: draw(VALUES) for name in NAMES} for task in tasks} for _ in range(2)
    )
    read = {
        task: {
            name: draw(st.sampled_from([1, -1]))
            for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
        }
        for task in tasks
    }
    return model, single, read


def changed(metrics, change):
    return {t: {n: change(t, n, v) for n, v in own.items()} for t, own in metrics.items()}


@LAW
@given(case=judged())
def test_it_is_the_mean_over_tasks_of_the_mean_over_metrics(case):
    model, single, read = case
    by_task = [
        statistics.fmean(
            d * (model[task][name] - single[task][name]) / single[task][name]
            for name, d in own.items()
        )
        for task, own in read.items()
    ]
    assert delta_m(model, single, read) == pytest.approx(100 * statistics.fmean(by_task))


@LAW
@given(case=judged())
def test_it_is_zero_of_the_single_task_models_themselves(case):
    _, single, read = case
    assert delta_m(single, single, read) == 0


@LAW
@given(case=judged(), scale=st.floats(1e-3, 1e3))
def test_it_does_not_change_with_the_scale_of_a_metric(case, scale):
    model, single, read = case

    def rescale(task, name, value):
        return value * scale if (task, name) == ("t0", "accuracy") else value

    found = delta_m(changed(model, rescale), changed(single, rescale), read)
    assert found == pytest.approx(delta_m(model, single, read), rel=1e-6, abs=1e-6)


@LAW
@given(case=judged())
def test_the_other_direction_of_every_metric_is_the_other_sign(case):
    model, single, read = case
    other = {task: {name: -d for name, d in own.items()} for task, own in read.items()}
    assert delta_m(model, single, other) == pytest.approx(-delta_m(model, single, read))


@LAW
@given(case=judged(), value=st.just(math.nan) | VALUES)
def test_what_is_not_named_does_not_enter(case, value):
    model, single, read = case

    def overwrite(task, name, known):
        return known if name in read[task] else value

    found = delta_m(changed(model, overwrite), changed(single, overwrite), read)
    assert found == delta_m(model, single, read)


@LAW
@given(case=judged())
def test_the_order_of_the_tasks_does_not_matter(case):
    model, single, read = case
    backwards = dict(reversed(read.items()))
    assert delta_m(model, single, backwards) == pytest.approx(delta_m(model, single, read))


def test_tasks_count_equally_however_many_metrics_they_have():
    """The flat mean over metrics would be +2.5 here: the two averages can differ in sign."""
    read = {"many": {"a": 1, "b": 1, "c": 1}, "one": {"a": -1}}
    single = {"many": {"a": 100.0, "b": 100.0, "c": 100.0}, "one": {"a": 100.0}}
    model = {"many": {"a": 110.0, "b": 110.0, "c": 110.0}, "one": {"a": 120.0}}
    assert delta_m(model, single, read) == pytest.approx((10 - 20) / 2)


def test_a_baseline_of_zero_and_one_below_it_keep_the_sign():
    read = {"a": {"score": 1}}
    assert delta_m({"a": {"score": 1.0}}, {"a": {"score": 0.0}}, read) > 1e6
    assert delta_m({"a": {"score": 0.0}}, {"a": {"score": 0.0}}, read) == 0
    better = delta_m({"a": {"score": -1.0}}, {"a": {"score": -2.0}}, read)
    assert better == pytest.approx(50)


def test_what_no_baseline_has_a_number_for_is_left_out_and_nothing_else():
    """And with it a task that is left without a metric; not all of them."""
    nan = math.nan
    judged_by = {"a": {"x": 1, "y": -1}, "b": {"x": 1}}
    first = {"a": {"x": nan, "y": 2.0}, "b": {"x": nan}}
    second = {"a": {"x": nan, "y": 3.0}, "b": {"x": 1.0}}
    assert measured(judged_by, [first]) == {"a": {"y": -1}}
    assert measured(judged_by, [first, second]) == {"a": {"y": -1}, "b": {"x": 1}}
    assert measured(judged_by, [second, second]) == {"a": {"y": -1}, "b": {"x": 1}}
    none = {"a": {"x": nan, "y": nan}, "b": {"x": nan}}
    assert measured(judged_by, [none]) == judged_by


def test_a_single_value_has_no_spread():
    assert mean_and_deviation([3.0]) == (3.0, 0.0)
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))


def test_a_metric_that_is_nan_is_not_hidden():
    read = {"a": {"auroc": 1}, "b": {"auroc": 1}}
    known, unknown = {"auroc": 80.0}, {"auroc": math.nan}
    for pair in ((known, unknown), (unknown, known), (unknown, unknown)):
        model, single = ({"a": known, "b": each} for each in pair)
        assert math.isnan(delta_m(model, single, read))


def losses(**by_task):
    return {task: {"loss": value} for task, value in by_task.items()}


@LAW
@given(case=judged())
def test_the_gain_in_loss_is_delta_m_of_a_metric_that_is_better_low(case):
    model, single, _ = case
    as_loss = [
        {task: {"loss": own["error"]} for task, own in each.items()} for each in (model, single)
    ]
    read = {task: {"error": -1} for task in single}
    assert loss_gain(*as_loss) == pytest.approx(delta_m(model, single, read))


def test_the_gain_in_loss_leaves_out_a_task_without_labels():
    single = losses(a=2.0, b=math.nan)
    assert loss_gain(losses(a=1.5, b=math.nan), single) == pytest.approx(25.0)
    assert math.isnan(loss_gain(losses(a=math.nan, b=1.0), losses(a=1.0, b=1.0)))
    assert math.isnan(loss_gain(losses(b=1.0), losses(b=math.nan)))
