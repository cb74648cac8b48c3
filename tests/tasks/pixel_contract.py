"""What every kind of task obeys whose labels are pictures: the laws of tasks, and these."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch

from recon_search.errors import ArtefactError, LabelError, RecipeError
from recon_search.tasks.registry import create_task, fit_pixels, fit_task
from recon_search.tasks.task import CellTask, PixelTask
from tests.tasks.contract import LAW, SEEDS, TaskContract, given


def named(task):
    """What a refusal of a picture begins with."""
    return re.escape(f"Task '{task.name}' must be given")


SIDES = (4, 5)
"""Height and width of what is drawn."""


class PixelContract(TaskContract):
    """Laws of `PixelTask`; beside what tasks give, say by `store` what files hold."""

    def store(self, task, target):
        """An array of a target (H, W), or (3, H, W), as files hold it."""
        raise NotImplementedError

    def options(self, task):
        """What a recipe says to have such a task made."""
        spec = task.spec()
        del spec["name"]
        return spec

    def assert_same(self, found, target):
        torch.testing.assert_close(found, target, equal_nan=True, rtol=1e-5, atol=1e-5)

    def test_it_reads_pictures_and_no_cells(self):
        for task in self.TASKS:
            assert isinstance(task, PixelTask)
            assert not isinstance(task, CellTask)
            assert task.reads == "pyramid"

    @LAW
    @given(seed=SEEDS)
    def test_what_files_hold_is_read_whatever_holds_it(self, seed):
        for task in self.TASKS:
            _, targets = self.sample(task, 3, seed)
            for target in targets:
                stored = self.store(task, target)
                for picture in (stored, torch.from_numpy(stored), stored.astype(np.float64)):
                    found = task.target(picture)
                    assert (found.dtype, found.shape) == (target.dtype, target.shape)
                    assert int(task.n_labels(found[None])) == int(task.n_labels(target[None]))
                    self.assert_same(found, target)

    def test_a_picture_of_another_shape_is_one_line(self):
        for task in self.TASKS:
            for shape in [(4,), (2, 4, 5, 3), (4, 5, 2), (0, 0)]:
                with pytest.raises(LabelError, match=named(task)) as caught:
                    task.target(np.ones(shape))
                assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("picture", ["a.png", None, [["x"]], np.array([[None]]), object()])
    def test_what_holds_no_numbers_is_one_line(self, picture):
        for task in self.TASKS:
            with pytest.raises(LabelError, match=f"{named(task)} arrays of numbers") as caught:
                task.target(picture)
            assert "\n" not in str(caught.value)

    def test_an_image_without_a_label_has_a_target_too(self):
        for task in self.TASKS:
            _, targets = self.sample(task, 2, 0)
            found = torch.stack([task.blank(SIDES)] * 2)
            assert (found.dtype, found.shape) == (targets.dtype, targets.shape)
            assert int(task.n_labels(found)) == 0

    @LAW
    @given(seed=SEEDS)
    def test_what_is_right_is_decoded_as_it_was_read(self, seed):
        for task in self.TASKS:
            _, targets = self.sample(task, 4, seed)
            outputs = self.perfect(task, targets).requires_grad_()
            found = task.decode(outputs)
            assert not found.requires_grad
            assert found.shape == targets.shape
            for picture, target in zip(found, targets, strict=True):
                known = self.known(target)
                read = task.target(self.as_stored(task, picture))
                self.assert_same(read[..., known], target[..., known])

    def as_stored(self, task, picture):
        """A decoded picture as a file that is read again would hold it."""
        return picture.numpy()

    def known(self, target):
        raise NotImplementedError

    @LAW
    @given(seed=SEEDS)
    def test_what_is_said_of_pixels_without_a_label_does_not_matter(self, seed):
        for task in self.TASKS:
            outputs, targets = self.sample(task, 4, seed)
            known = torch.stack([self.known(target) for target in targets])
            other = torch.where(known[:, None], outputs, 3 - 2 * outputs)
            first, second = (self.metered(task, (each, targets)) for each in (outputs, other))
            self.assert_close(first, second)
            outputs.requires_grad_()
            loss = task.loss(outputs, targets)
            if not loss.isnan():
                loss.backward()
                assert (outputs.grad.movedim(1, -1)[~known] == 0).all()

    def test_images_of_other_sizes_are_pooled_by_their_pixels(self):
        for task in self.TASKS:
            outputs, targets = self.sample(task, 6, 1)
            whole = self.metered(task, (outputs, targets))
            wide = outputs.flatten(2)[..., None], targets.flatten(-2)[..., None]
            parts = [(outputs[:3], targets[:3]), (wide[0][3:], wide[1][3:])]
            self.assert_close(self.metered(task, *parts), whole)

    def test_a_target_may_have_a_channel(self):
        for task in self.TASKS:
            outputs, targets = self.sample(task, 6, 1)
            if targets.ndim == 3:
                assert torch.equal(
                    task.loss(outputs, targets[:, None]), task.loss(outputs, targets)
                )
                found = self.metered(task, (outputs, targets[:, None]))
                assert found == self.metered(task, (outputs, targets))

    def test_an_output_that_is_not_finite_is_not_hidden(self):
        for task in self.TASKS:
            outputs, targets = self.sample(task, 6, 1)
            place = torch.stack([self.known(target) for target in targets]).nonzero()[0]
            outputs[place[0], :, place[1], place[2]] = torch.nan
            assert all(map(math.isnan, self.metered(task, (outputs, targets)).values()))

    def test_every_metric_has_a_unit_and_shares_are_in_percent(self):
        for task in self.TASKS:
            assert list(task.units) == list(task.metrics)
            outputs, targets = self.sample(task, 40, 0)
            drawn = self.metered(task, (outputs, targets))
            right = self.metered(task, (self.perfect(task, targets), targets))
            for name, unit in task.units.items():
                if unit == "%":
                    assert 0 <= drawn[name] < right[name] == 100

    def test_a_task_is_made_of_its_options(self):
        for task in self.TASKS:
            options = self.options(task)
            kept = json.dumps(options)
            assert fit_pixels(task.name, iter(()), options) == task
            assert json.dumps(options) == kept, "left as they are"

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("weight", 0, "`weight` must be a finite number above 0, got 0"),
            ("weight", "1", "`weight` must be a finite number above 0, got '1'"),
            ("metrics", [], r"`metrics` must be a list of different metrics, got \[\]"),
            ("metrics", ["acuracy"], "`metrics` must be among .*, got 'acuracy'"),
        ],
    )
    def test_an_option_that_is_of_no_use_is_one_line(self, option, value, message):
        for task in self.TASKS:
            with pytest.raises(RecipeError, match=message) as caught:
                dataclasses.replace(task, **{option: value})
            assert str(caught.value).startswith(f"Task '{task.name}': ")
            assert "\n" not in str(caught.value)

    def test_an_option_that_is_not_known_names_the_near_ones(self):
        for task in self.TASKS:
            with pytest.raises(RecipeError, match=r"no option `wieght`.*'weight'") as caught:
                fit_pixels(task.name, (), {**self.options(task), "wieght": 1})
            assert "\n" not in str(caught.value)
            with pytest.raises(ArtefactError, match=r"unexpected.*'wieght'.*'weight'"):
                create_task({**task.spec(), "wieght": 1})

    def test_cells_of_a_table_are_refused(self):
        for task in self.TASKS:
            with pytest.raises(RecipeError, match=r"must read cells .*classes, binary, .*got '"):
                fit_task(task.name, ["a"], self.options(task))

    def test_tasks_can_be_keys(self):
        for task in self.TASKS:
            assert {task: 1}[create_task(task.spec())] == 1
