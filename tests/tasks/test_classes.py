"""Classes obey the contract of tasks, and equal scikit-learn."""

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from recon_search.errors import ArtefactError, RecipeError
from recon_search.tasks.classes import IGNORED, Classes
from recon_search.tasks.registry import create_task
from tests.tasks.contract import TaskContract


class TestClasses(TaskContract):
    def task(self):
        return Classes("a", 4, weight=0.5)

    def outputs(self, n, generator):
        return torch.randn(n, 4, generator=generator)

    def targets(self, n, generator):
        targets = torch.randint(4, (n,), generator=generator)
        return torch.where(torch.rand(n, generator=generator) < 0.3, IGNORED, targets)

    def unlabelled(self, n):
        return torch.full((n,), IGNORED)

    @pytest.mark.parametrize("seed", range(5))
    def test_metrics_equal_those_of_scikit_learn(self, seed):
        output, target = self.draw(seed)
        known = target != IGNORED
        found = self.measure((output, target))
        truth, chosen = target[known].numpy(), output[known].argmax(1).numpy()
        assert found["accuracy"] == pytest.approx(100 * accuracy_score(truth, chosen))
        shares = output[known].double().softmax(1).numpy()
        expected = log_loss(truth, shares, labels=range(4))
        assert found["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "class", "name": "a"}, "Did you mean 'classes'"),
        ({"name": "a", "n_classes": 3}, "must be one of classes, got None"),
        ({"kind": "classes", "name": "a"}, "cannot be made of"),
        ({"kind": "classes", "name": "a", "n_classes": 3, "colour": 1}, "cannot be made of"),
    ],
)
def test_specs_of_no_task(spec, message):
    with pytest.raises(ArtefactError, match=message):
        create_task(spec)


def make(name):
    """A kind of one's own, which is named by its import path."""
    return Classes(name, 2)


def test_a_kind_of_ones_own_is_named_by_its_import_path():
    assert create_task({"kind": f"{__name__}:make", "name": "x"}) == Classes("x", 2)
    with pytest.raises(RecipeError, match=r"has no 'mak'\. Did you mean 'make'"):
        create_task({"kind": f"{__name__}:mak", "name": "x"})
    with pytest.raises(RecipeError, match="not_there is not"):
        create_task({"kind": "not_there:make", "name": "x"})
    with pytest.raises(RecipeError, match="cannot be called with"):
        create_task({"kind": f"{__name__}:make", "nme": "x"})
    with pytest.raises(ArtefactError, match=r"must make a recon_search\.Task"):
        create_task({"kind": "builtins:dict", "name": "x"})
