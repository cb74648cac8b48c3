"""What every feed obeys. A subclass of `FeedContract` says how to open one."""

from collections import Counter

import pytest
import torch


def are_equal(first, second):
    """Whether tensors are equal, and nan where the other is."""
    is_alike = (first.dtype, first.shape) == (second.dtype, second.shape)
    return is_alike and torch.allclose(first, second, 0, 0, equal_nan=True)


class FeedContract:
    """Laws of `Feed`; inherit, and give a fixture `feed` with at least 40 training inputs."""

    SIZE = 16

    def steps(self, feed, part="train", size=None, order=None, share=(0, 1)):
        """The batches of all steps."""
        size = self.SIZE if size is None else size
        return [batch for step in feed.steps(part, size, order, share=share) for batch in step]

    @staticmethod
    def same(first, second):
        return (
            first.targets.keys() == second.targets.keys()
            and torch.equal(first.inputs, second.inputs)
            and all(are_equal(t, second.targets[n]) for n, t in first.targets.items())
        )

    @pytest.mark.parametrize("part", ["train", "validation", "test"])
    def test_without_an_order_every_input_comes_once_and_in_place(self, feed, part):
        small, large = self.steps(feed, part, 7), self.steps(feed, part, 10**6)
        assert sum(len(batch.inputs) for batch in small) == sum(feed.lengths(part))
        assert torch.equal(torch.cat([batch.inputs for batch in small]), large[0].inputs)
        for name, target in large[0].targets.items():
            assert are_equal(torch.cat([batch.targets[name] for batch in small]), target)

    @pytest.mark.parametrize("size", [1, 7, 16, 10**6])
    @pytest.mark.parametrize("shuffled", [False, True])
    def test_as_many_steps_come_as_are_counted(self, feed, size, shuffled):
        order = (0, 0) if shuffled else None
        found = list(feed.steps("train", size, order))
        assert len(found) == feed.n_steps("train", size, shuffled=shuffled) > 0

    def test_a_shuffled_epoch_leaves_the_smaller_rest_out(self, feed):
        sizes = [len(batch.inputs) for batch in self.steps(feed, order=(0, 0))]
        assert sizes == [self.SIZE] * (sum(feed.lengths("train")) // self.SIZE)

    @staticmethod
    def rows(batches):
        """Every input with its targets, as bytes."""
        return sorted(
            batch.inputs[row].numpy().tobytes()
            + b"".join(batch.targets[name][row].numpy().tobytes() for name in sorted(batch.targets))
            for batch in batches
            for row in range(len(batch.inputs))
        )

    @pytest.mark.parametrize("size", [1, 10**6])
    def test_an_epoch_without_a_rest_has_every_input_once_with_its_own_targets(self, feed, size):
        """A part smaller than a step is one step; nothing of it is left out."""
        epoch = self.rows(self.steps(feed, size=size, order=(2, 5)))
        assert epoch == self.rows(self.steps(feed))

    def test_an_epoch_with_a_rest_has_no_input_twice(self, feed):
        known = Counter(self.rows(self.steps(feed)))
        assert Counter(self.rows(self.steps(feed, order=(2, 5)))) <= known

    def test_the_order_is_a_function_of_seed_and_epoch_alone(self, feed):
        first = self.steps(feed, order=(3, 1))
        torch.manual_seed(99)
        torch.rand(5)
        self.steps(feed, order=(4, 4))
        again = self.steps(feed, order=(3, 1))
        assert all(map(self.same, first, again))
        for other in ((3, 2), (4, 1), (1, 3)):
            assert not all(map(self.same, first, self.steps(feed, order=other)))

    @pytest.mark.parametrize("n", [2, 4])
    @pytest.mark.parametrize("order", [None, (1, 2)])
    def test_the_shares_of_the_ranks_make_the_batch(self, feed, n, order):
        whole = self.steps(feed, order=order)
        parts = [self.steps(feed, order=order, share=(rank, n)) for rank in range(n)]
        for index, batch in enumerate(whole):
            if len(batch.inputs) % n:
                continue  # of the last one, which training never shares
            own = [shares[index] for shares in parts]
            assert torch.equal(torch.cat([share.inputs for share in own]), batch.inputs)
            for name, target in batch.targets.items():
                assert are_equal(torch.cat([share.targets[name] for share in own]), target)

    def test_inputs_are_normalised_by_the_training_part(self, feed):
        ready = feed.inputs.normalise(
            torch.cat([batch.inputs for batch in self.steps(feed)])
        ).double()
        assert ready.mean((0, 2, 3)).abs().max() < 1e-5
        assert (ready.std((0, 2, 3)) - 1).abs().max() < 1e-5
        assert feed.inputs is feed.inputs, "taken once"

    def test_statistics_are_those_of_a_double_copy_of_the_training_part(self, feed):
        inputs = torch.cat([batch.inputs for batch in self.steps(feed)]).double()
        inputs = inputs / feed.inputs.scale
        for found, expected in (
            (feed.inputs.mean, inputs.mean((0, 2, 3))),
            (feed.inputs.std, inputs.std((0, 2, 3))),
        ):
            torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-6, atol=1e-7)

    def test_the_parts_have_steps_of_the_same_kind(self, feed):
        kinds = {
            part: [
                (batch.inputs.dtype, batch.inputs.device, frozenset(batch.targets))
                for batch in next(iter(feed.steps(part, 4)))
            ]
            for part in ("train", "validation", "test")
        }
        assert kinds["validation"] == kinds["train"] == kinds["test"]
        assert all(device.type == feed.device.type for _, device, _ in kinds["train"])

    def test_targets_are_those_of_the_schemas_tasks(self, feed):
        for batch in self.steps(feed):
            assert batch.targets.keys() <= set(feed.schema.names)
            assert tuple(batch.inputs.shape[1:]) == feed.schema.shape
            for task in feed.schema.select(tuple(batch.targets)):
                target = batch.targets[task.name]
                labelled = int(task.n_labels(target))
                every = len(batch.inputs) if target.ndim == 1 else target.numel()
                assert labelled == every or task.name not in feed.schema.complete
