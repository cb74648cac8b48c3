"""What every kind of task obeys. A subclass of `TaskContract` says how its data is drawn.

The first dimension of outputs and targets is that of the samples; kinds whose targets are pixels
obey the same laws.
"""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_search.tasks.registry import create_task
from recon_search.tasks.scoring import delta_m
from recon_search.tasks.task import Task, directions

LAW = settings(
    deadline=None,
    max_examples=20,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.differing_executors],  # every subclass inherits the laws
)
SEEDS = st.integers(0, 2**31 - 1)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


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

    def test_a_meter_keeps_no_batch(self):
        for task in self.TASKS:
            meter = task.meter()
            sizes = []
            for seed in range(3):
                meter.update(*self.sample(task, 50, seed))
                states = [
                    value
                    for metric in meter._metrics.values()
                    for value in metric.metric_state.values()
                ]
                assert not any(isinstance(value, list) for value in states)
                sizes.append(sum(value.numel() for value in states))
            assert len(set(sizes)) == 1

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
