"""What every kind of task obeys. A subclass of `TaskContract` says how its data is drawn.

The first dimension of outputs and targets is that of the samples; kinds whose targets are pixels
obey the same laws.
"""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_search.errors import ArtefactError, LabelError, RecipeError
from recon_search.tasks.registry import create_task, fit_task
from recon_search.tasks.scoring import delta_m
from recon_search.tasks.task import CellTask, Task, class_names, directions

LAW = settings(
    deadline=None,
    max_examples=20,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.differing_executors],  # every subclass inherits the laws
)
SEEDS = st.integers(0, 2**31 - 1)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


RANKINGS = frozenset(["auroc", "map"])
"""Metrics that cannot be told from counts: they keep a score for each output, and its target."""


class TaskContract:
    """Laws of `Task`; inherit, give `TASKS` and the four methods that say how data is drawn."""

    TASKS = ()
    TOLERANCE = 1e-5

    def draw(self, task, n, generator):
        """Random outputs and targets of n samples; some targets have no label."""
        raise NotImplementedError

    def unlabelled(self, task, targets):
        """Targets of the same shape, none of which has a label."""
        raise NotImplementedError

    def perfect(self, task, targets):
        """Outputs that are right wherever there is a label."""
        raise NotImplementedError

    def reference(self, task, outputs, targets):
        """Every metric and `loss`, not computed by torch or torchmetrics; some have a label."""
        raise NotImplementedError

    def sample(self, task, n, seed):
        return self.draw(task, n, torch.Generator().manual_seed(seed))

    def metered(self, task, *batches):
        meter = task.meter()
        for outputs, targets in batches:
            meter.update(outputs, targets)
        return meter.compute()

    def near(self, value):
        return pytest.approx(value, rel=self.TOLERANCE, abs=self.TOLERANCE, nan_ok=True)

    def assert_close(self, found, expected):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == self.near(value), name

    def test_it_is_a_task(self):
        assert self.TASKS
        for task in self.TASKS:
            assert isinstance(task, Task)
            assert task.reads in ("vector", "pyramid")
            assert isinstance(task.n_outputs, int)
            assert task.n_outputs > 0
            assert task.metrics
            assert set(task.metrics.values()) <= {1, -1}
            outputs, targets = self.sample(task, 3, 0)
            assert outputs.shape[:2] == (3, task.n_outputs)
            assert len(targets) == 3

    def test_its_spec_is_plain_and_makes_an_equal_task(self):
        for task in self.TASKS:
            spec = json.loads(json.dumps(task.spec()))
            assert spec == task.spec()
            assert create_task(spec) == task
            assert create_task(spec).spec() == spec

    def test_every_setting_is_in_the_spec(self):
        """Two tasks that differ have specs that differ: they are part of a training's identity."""
        for task in self.TASKS:
            other = dataclasses.replace(task, name=f"{task.name} too")
            assert other.spec() != task.spec()
            heavier = dataclasses.replace(task, weight=task.weight + 1)
            assert heavier.spec() != task.spec()
        specs = [json.dumps(task.spec(), sort_keys=True) for task in self.TASKS]
        assert len(set(specs)) == len(specs)

    def test_a_weight_of_one_is_not_in_the_spec(self):
        for task in self.TASKS:
            assert "weight" not in dataclasses.replace(task, weight=1.0).spec()

    def test_a_weight_changes_neither_loss_nor_metrics(self):
        """It multiplies what a method sees, and nothing that is reported."""
        for task in self.TASKS:
            batch = self.sample(task, 12, 1)
            heavy = dataclasses.replace(task, weight=7.0)
            assert torch.equal(heavy.loss(*batch), task.loss(*batch))
            assert self.metered(heavy, batch) == self.metered(task, batch)

    def test_without_a_label_there_is_no_loss_and_nothing_is_counted(self):
        for task in self.TASKS:
            outputs, targets = self.sample(task, 5, 2)
            none = self.unlabelled(task, targets)
            assert int(task.n_labels(none)) == 0
            assert task.loss(outputs, none).isnan()
            seen = self.metered(task, (outputs, none))
            assert set(task.metrics) | {"loss"} <= seen.keys()
            assert all(math.isnan(value) for value in seen.values())
            assert self.metered(task).keys() == seen.keys()
            assert all(math.isnan(value) for value in self.metered(task).values())
            labelled = self.metered(task, (outputs, targets))
            found = self.metered(task, (outputs, none), (outputs, targets), (outputs, none))
            self.assert_close(found, labelled)

    def test_the_loss_is_a_float32_scalar_whatever_the_precision(self):
        for task in self.TASKS:
            outputs, targets = self.sample(task, 8, 3)
            for dtype in (torch.float32, torch.bfloat16):
                loss = task.loss(outputs.to(dtype), targets)
                assert (loss.dtype, loss.shape) == (torch.float32, ())
            low = outputs.bfloat16()
            assert torch.equal(task.loss(low, targets), task.loss(low.float(), targets))

    @LAW
    @given(seed=SEEDS, sizes=SIZES)
    def test_the_loss_is_the_mean_of_its_parts_weighted_by_their_labels(self, seed, sizes):
        for task in self.TASKS:
            outputs, targets = self.sample(task, sum(sizes), seed)
            parts = list(zip(outputs.split(sizes), targets.split(sizes), strict=True))
            numbers = [int(task.n_labels(target)) for _, target in parts]
            assert sum(numbers) == int(task.n_labels(targets))
            if not sum(numbers):
                continue
            losses = [
                float(task.loss(*p)) if n else 0.0 for p, n in zip(parts, numbers, strict=True)
            ]
            mean = sum(n * loss for n, loss in zip(numbers, losses, strict=True)) / sum(numbers)
            assert float(task.loss(outputs, targets)) == self.near(mean)

    @LAW
    @given(seed=SEEDS, sizes=SIZES)
    def test_a_meter_does_not_depend_on_how_samples_are_cut(self, seed, sizes):
        for task in self.TASKS:
            outputs, targets = self.sample(task, sum(sizes), seed)
            parts = zip(outputs.split(sizes), targets.split(sizes), strict=True)
            found = self.metered(task, *parts)
            self.assert_close(found, self.metered(task, (outputs, targets)))

    def test_a_meter_keeps_no_batch_but_the_scores_of_a_ranking(self):
        for task in self.TASKS:
            meter = task.meter()
            sizes = []
            for seed in range(3):
                meter.update(*self.sample(task, 50, seed))
                kept = [
                    value
                    for name, metric in meter._metrics.items()
                    for value in metric.metric_state.values()
                    if name not in RANKINGS
                ]
                assert not any(isinstance(value, list) for value in kept)
                sizes.append(sum(value.numel() for value in kept))
            assert len(set(sizes)) == 1
            for name in RANKINGS & task.metrics.keys():
                kept = [
                    sum(batch.numel() for batch in of)
                    for of in meter._metrics[name].metric_state.values()
                ]
                assert max(kept) <= 150 * task.n_outputs

    @LAW
    @given(seed=SEEDS, n=st.integers(1, 40))
    def test_metrics_and_loss_are_those_of_an_independent_computation(self, seed, n):
        for task in self.TASKS:
            outputs, targets = self.sample(task, n, seed)
            if not int(task.n_labels(targets)):
                continue
            expected = self.reference(task, outputs, targets)
            self.assert_close(self.metered(task, (outputs, targets)), expected)
            assert float(task.loss(outputs, targets)) == self.near(expected["loss"])

    @LAW
    @given(seed=SEEDS)
    def test_the_order_of_samples_does_not_matter(self, seed):
        for task in self.TASKS:
            outputs, targets = self.sample(task, 12, seed)
            order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
            found = self.metered(task, (outputs[order], targets[order]))
            self.assert_close(found, self.metered(task, (outputs, targets)))

    def test_a_sample_without_a_label_has_no_gradient(self):
        for task in self.TASKS:
            outputs, targets = self.sample(task, 6, 4)
            targets[2:4] = self.unlabelled(task, targets)[2:4]
            outputs.requires_grad_()
            task.loss(outputs, targets).backward()
            assert (outputs.grad[2:4] == 0).all()
            assert (outputs.grad != 0).any()

    def test_nothing_is_better_than_what_is_right(self):
        """Directions are right: being right is no worse, in every metric that delta_m reads."""
        for task in self.TASKS:
            outputs, targets = self.sample(task, 30, 5)
            best = self.metered(task, (self.perfect(task, targets), targets))
            drawn = self.metered(task, (outputs, targets))
            for name, direction in task.metrics.items():
                assert direction * (best[name] - drawn[name]) > 0, name
            assert best["loss"] < drawn["loss"]
            single = {task.name: drawn}
            assert delta_m({task.name: best}, single, directions([task])) > 0

    @LAW
    @given(seed=SEEDS, scale=st.floats(1e-3, 1e3))
    def test_delta_m_does_not_change_with_the_scale_of_a_metric(self, seed, scale):
        for task in self.TASKS:
            drawn = [self.metered(task, self.sample(task, 40, seed + more)) for more in (0, 1)]
            if any(math.isnan(value) for value in (*drawn[0].values(), *drawn[1].values())):
                continue
            if not all(drawn[1][name] for name in task.metrics):
                continue  # relative to nothing
            mine, single = ({task.name: values} for values in drawn)
            expected = delta_m(mine, single, directions([task]))
            for name in task.metrics:
                scaled = [{task.name: {**values, name: scale * values[name]}} for values in drawn]
                assert delta_m(*scaled, directions([task])) == pytest.approx(expected, abs=1e-9)


class CellContract(TaskContract):
    """Laws of `CellTask`; inherit, and say by `cells` what a table holds."""

    def cells(self, task, n, generator):
        """Random cells of n samples, as strings, numbers or lists; some are no label."""
        raise NotImplementedError

    def options(self, task):
        """What a recipe says to have such a task made of cells: not what cells say themselves."""
        raise NotImplementedError

    def column(self, task, n, seed):
        return self.cells(task, n, torch.Generator().manual_seed(seed))

    def targets(self, task, cells):
        return torch.stack([task.target(cell) for cell in cells])

    def same(self, first, second):
        return torch.equal(first, second)

    def test_it_reads_cells(self):
        for task in self.TASKS:
            assert isinstance(task, CellTask)
            _, drawn = self.sample(task, 20, 0)
            targets = self.targets(task, self.column(task, 20, 0))
            assert (targets.dtype, targets.shape) == (drawn.dtype, drawn.shape)
            assert int(task.n_labels(targets)) > 0

    def test_every_metric_has_a_unit_and_shares_are_in_percent(self):
        for task in self.TASKS:
            assert list(task.units) == list(task.metrics)
            found = self.metered(task, self.sample(task, 40, 0))
            for name, unit in task.units.items():
                if unit == "%":
                    assert 0 <= found[name] <= 100
                    assert found[name] == 0 or found[name] > 1, "a share of forty samples"

    @pytest.mark.parametrize("cell", [None, "", " ", math.nan, "nan", "NaN", np.float32("nan")])
    def test_a_cell_that_is_empty_is_no_label(self, cell):
        for task in self.TASKS:
            target = task.target(cell)[None]
            assert int(task.n_labels(target)) == 0
            assert torch.equal(target.isnan(), self.unlabelled(task, target).isnan())
            assert target.shape[1:] == self.sample(task, 1, 0)[1].shape[1:]

    @pytest.mark.parametrize("cell", [-7, "-7", -7.0, "-7.0", " -7 ", np.int64(-7)])
    def test_a_cell_that_is_to_be_ignored_is_no_label(self, cell):
        for task in self.TASKS:
            for ignore in (-7, ["x", "-7"], ["-7.0"]):
                ignoring = dataclasses.replace(task, ignore=ignore)
                assert int(task.n_labels(ignoring.target(cell)[None])) == 0
                assert create_task(json.loads(json.dumps(ignoring.spec()))) == ignoring

    @LAW
    @given(seed=SEEDS)
    def test_what_is_right_is_predicted_as_it_was_read(self, seed):
        for task in self.TASKS:
            cells = self.column(task, 12, seed)
            targets = self.targets(task, cells)
            found = task.predict(self.perfect(task, targets))
            for cell, target, said in zip(cells, targets, found[""], strict=True):
                if int(task.n_labels(target[None])) == target.numel():
                    assert self.same(task.target(said), target), (cell, said)

    def test_predictions_are_plain_columns_of_one_length(self):
        for task in self.TASKS:
            outputs, _ = self.sample(task, 7, 0)
            usual = task.predict(outputs)
            for found in (usual, task.predict(outputs, every=True)):
                assert {len(column) for column in found.values()} == {7}
                assert json.loads(json.dumps(found)) == found
                assert usual.items() <= found.items()
                for name, column in found.items():
                    assert "probability" not in name or all(0 <= share <= 1 for share in column)

    @LAW
    @given(seed=SEEDS)
    def test_the_order_of_cells_does_not_matter_to_the_task_that_is_made_of_them(self, seed):
        for task in self.TASKS:
            cells = self.column(task, 40, seed % 7)
            order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
            options = self.options(task)
            found = fit_task(task.name, cells, options)
            again = fit_task(task.name, (cells[index] for index in order), options)
            assert (found, found.spec()) == (again, again.spec())

    def test_a_task_made_of_cells_reads_them_and_is_made_again_of_its_spec(self):
        for task in self.TASKS:
            cells = self.column(task, 40, 1)
            found = fit_task(task.name, cells, self.options(task))
            assert create_task(json.loads(json.dumps(found.spec()))) == found
            assert int(task.n_labels(self.targets(found, cells))) > 0
            assert found.metrics == task.metrics
            assert found.weight == task.weight

    @pytest.mark.parametrize("cells", [[], [None, "", math.nan]])
    def test_without_a_label_no_task_is_made(self, cells):
        for task in self.TASKS:
            options = self.options(task)
            given = {"classes": class_names(task)} if class_names(task) else {}
            for each in (options, {**options, **given}):
                with pytest.raises(LabelError, match=re.escape(f"Task '{task.name}' must have")):
                    fit_task(task.name, cells, each)

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("weight", 0, "`weight` must be a finite number above 0, got 0"),
            ("weight", math.nan, "`weight` must be a finite number above 0, got nan"),
            ("weight", "1", "`weight` must be a finite number above 0, got '1'"),
            ("weight", True, "`weight` must be a finite number above 0, got True"),
            ("metrics", [], r"`metrics` must be a list of different metrics, got \[\]"),
            ("metrics", 3, "`metrics` must be a list of different metrics, got 3"),
            ("metrics", ["acuracy"], "`metrics` must be among .*, got 'acuracy'"),
            ("metrics", [2], "`metrics` must be among .*, got 2"),
            ("metrics", [["f1"]], r"`metrics` must be among .*, got \['f1'\]"),
        ],
    )
    def test_an_option_that_is_of_no_use_is_one_line(self, option, value, message):
        for task in self.TASKS:
            with pytest.raises(RecipeError, match=message) as caught:
                dataclasses.replace(task, **{option: value})
            assert str(caught.value).startswith(f"Task '{task.name}': ")
            assert "\n" not in str(caught.value)
            with pytest.raises(RecipeError, match=message):
                create_task({**task.spec(), option: value})

    def test_a_metric_comes_once(self):
        for task in self.TASKS:
            name = next(iter(task.metrics))
            with pytest.raises(RecipeError, match="must be a list of different metrics"):
                dataclasses.replace(task, metrics=[name, name])
            assert list(dataclasses.replace(task, metrics=name).metrics) == [name]

    @pytest.mark.parametrize(("option", "near"), [("wieght", "weight"), ("metric", "metrics")])
    def test_an_option_that_is_not_known_names_the_near_ones(self, option, near):
        for task in self.TASKS:
            cells = self.column(task, 40, 1)
            with pytest.raises(RecipeError, match=f"no option `{option}`.*'{near}'") as caught:
                fit_task(task.name, cells, {**self.options(task), option: 1})
            assert "\n" not in str(caught.value)
            with pytest.raises(ArtefactError, match=f"unexpected.*'{option}'.*'{near}'"):
                create_task({**task.spec(), option: 1})

    @pytest.mark.parametrize("classes", [3, "ab", {"a": 1}, ["a", "a"], [["a"], None], True])
    def test_classes_that_are_no_list_of_names_are_one_line(self, classes):
        for task in self.TASKS:
            if not class_names(task):
                continue
            options = {**self.options(task), "classes": classes}
            with pytest.raises(RecipeError, match="`classes` must be a list of different names"):
                fit_task(task.name, self.column(task, 40, 1), options)

    def test_tasks_can_be_keys(self):
        for task in self.TASKS:
            assert {task: 1}[create_task(task.spec())] == 1
