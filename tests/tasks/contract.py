"""What every kind of task obeys. A subclass of `TaskContract` supplies tasks and random data."""

import math

import pytest
import torch

from recon_search.tasks.registry import create_task
from recon_search.tasks.scoring import delta_m
from recon_search.tasks.task import Task, directions


class TaskContract:
    """Laws of `Task`; inherit, and give `task`, `outputs`, `targets` and `unlabelled`."""

    N = 23

    def task(self) -> Task:
        raise NotImplementedError

    def outputs(self, n, generator):
        """Random outputs of n inputs."""
        raise NotImplementedError

    def targets(self, n, generator):
        """Random targets of n inputs, some without a label."""
        raise NotImplementedError

    def unlabelled(self, n):
        """Targets of n inputs without any label."""
        raise NotImplementedError

    def draw(self, seed=0, n=N):
        generator = torch.Generator().manual_seed(seed)
        return self.outputs(n, generator), self.targets(n, generator)

    def measure(self, *batches):
        meter = self.task().meter()
        for output, target in batches:
            meter.update(output, target)
        return meter.compute()

    def test_it_is_a_task_with_metrics_that_have_directions(self):
        task = self.task()
        assert isinstance(task, Task)
        assert task.metrics
        assert set(task.metrics.values()) <= {1, -1}
        assert task.reads in ("vector", "pyramid")
        assert task.n_outputs >= 1
        assert set(self.measure(self.draw())) == {*task.metrics, "loss"}

    def test_its_spec_makes_an_equal_task(self):
        task = self.task()
        assert create_task(task.spec()) == task

    def test_without_a_label_there_is_no_loss_and_no_metric(self):
        output, target = self.outputs(4, torch.Generator()), self.unlabelled(4)
        assert int(self.task().n_labels(target)) == 0
        assert all(math.isnan(value) for value in self.measure((output, target)).values())
        seen = self.draw()
        assert self.measure(seen, (output, target)) == self.measure(seen)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("cut", [1, 7, 22])
    def test_the_loss_is_the_label_weighted_mean_of_its_parts(self, seed, cut):
        task, (output, target) = self.task(), self.draw(seed)
        parts = [(output[:cut], target[:cut]), (output[cut:], target[cut:])]
        n = [int(task.n_labels(own)) for _, own in parts]
        losses = [float(task.loss(*part)) for part in parts]
        mean = sum(k * loss for k, loss in zip(n, losses, strict=True) if k) / sum(n)
        assert float(task.loss(output, target)) == pytest.approx(mean, rel=1e-5)
        assert task.loss(output, target).dtype == torch.float32

    @pytest.mark.parametrize("size", [1, 5, 22])
    def test_a_meter_does_not_depend_on_the_batches(self, size):
        output, target = self.draw()
        batches = list(zip(output.split(size), target.split(size), strict=True))
        assert self.measure(*batches) == pytest.approx(self.measure((output, target)), rel=1e-5)

    def test_a_meter_keeps_no_batch(self):
        meter = self.task().meter()
        sizes = []
        for seed in range(3):
            meter.update(*self.draw(seed))
            states = meter._metrics.state_dict() | {
                name: value
                for metric in meter._metrics.values()
                for name, value in metric.metric_state.items()
            }
            sizes.append(sum(v.numel() for v in states.values() if isinstance(v, torch.Tensor)))
            assert not any(isinstance(value, list) and value for value in states.values())
        assert len(set(sizes)) == 1

    def test_delta_m_does_not_change_with_the_scale_of_a_metric(self):
        task = self.task()
        model, single = self.measure(self.draw(1)), self.measure(self.draw(2))
        judged_by = directions([task])
        before = delta_m({task.name: model}, {task.name: single}, judged_by)
        for name in task.metrics:
            for values in (model, single):
                values[name] *= 37.5
            after = delta_m({task.name: model}, {task.name: single}, judged_by)
            assert after == pytest.approx(before)

    def test_a_better_metric_is_a_higher_delta_m(self):
        task = self.task()
        single = self.measure(self.draw(2))
        for name, direction in task.metrics.items():
            better = {**single, name: single[name] + 0.1 * direction * abs(single[name])}
            assert delta_m({task.name: better}, {task.name: single}, directions([task])) > 0
