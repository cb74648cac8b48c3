"""One class an image obeys the contract of tasks."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from recon_search.tasks.classes import IGNORED, Classes
from recon_search.tasks.meter import Meter
from tests.tasks.contract import TaskContract


class TestClasses(TaskContract):
    TASKS = (
        Classes("left", 10),
        Classes("two of them", 2),
        Classes("a, b: [c]", 3, weight=0.25),
    )

    def draw(self, task, n, generator):
        outputs = 3 * torch.randn(n, task.n_classes, generator=generator)
        targets = torch.randint(task.n_classes, (n,), generator=generator)
        missing = torch.rand(n, generator=generator) < 0.3
        return outputs, targets.masked_fill(missing, IGNORED)

    def unlabelled(self, task, targets):
        return torch.full_like(targets, IGNORED)

    def perfect(self, task, targets):
        return 50 * torch.nn.functional.one_hot(targets.clamp(min=0), task.n_classes).float()

    def reference(self, task, outputs, targets):
        known = targets.numpy() != IGNORED
        scores, classes = outputs.double().numpy()[known], targets.numpy()[known]
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return {
            "accuracy": 100 * accuracy_score(classes, shares.argmax(1)),
            "loss": log_loss(classes, shares, labels=range(task.n_classes)),
        }


def test_a_loss_that_is_not_finite_is_not_hidden():
    """A diverged network must show: its mean loss is nan, not that of the other batches."""
    task = Classes("a", 2)
    meter = task.meter()
    meter.update(torch.zeros(2, 2), torch.tensor([0, 1]))
    meter.update(torch.full((1, 2), torch.nan), torch.tensor([0]))
    assert np.isnan(meter.compute()["loss"])


def test_meters_of_one_task_do_not_share_what_they_have_seen():
    task = Classes("a", 2)
    first, second = task.meter(), task.meter()
    first.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert first.compute()["accuracy"] == 100
    assert np.isnan(second.compute()["accuracy"])
    assert isinstance(second, Meter)


def test_reading_a_meter_in_between_changes_nothing():
    task = Classes("a", 2)
    meter = task.meter()
    outputs, targets = torch.randn(6, 2), torch.tensor([0, 1, 1, IGNORED, 0, 1])
    meter.update(outputs[:3], targets[:3])
    meter.compute()
    meter.update(outputs[3:], targets[3:])
    whole = task.meter()
    whole.update(outputs, targets)
    assert meter.compute() == pytest.approx(whole.compute())
