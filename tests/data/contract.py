"""What every feed obeys. A subclass of `FeedContract` says how to open one."""

import pytest
import torch


class FeedContract:
    """Laws of `Feed`; inherit, and give a fixture `feed` with at least 40 training inputs."""

    SIZE = 16

    def steps(self, feed, part="train", size=SIZE, order=None, share=(0, 1)):
        """The batches of all steps."""
        return [batch for step in feed.steps(part, size, order, share=share) for batch in step]

    @staticmethod
    def same(first, second):
        return (
            first.targets.keys() == second.targets.keys()
            and torch.equal(first.inputs, second.inputs)
            and all(torch.equal(t, second.targets[n]) for n, t in first.targets.items())
        )

    @pytest.mark.parametrize("part", ["train", "validation", "test"])
    def test_without_an_order_every_input_comes_once_and_in_place(self, feed, part):
        small, large = self.steps(feed, part, 7), self.steps(feed, part, 10**6)
        assert sum(len(batch.inputs) for batch in small) == feed.n_samples(part)
        assert torch.equal(torch.cat([batch.inputs for batch in small]), large[0].inputs)
        for name, target in large[0].targets.items():
            assert torch.equal(torch.cat([batch.targets[name] for batch in small]), target)

    @pytest.mark.parametrize("size", [1, 7, 16, 10**6])
    @pytest.mark.parametrize("shuffled", [False, True])
    def test_as_many_steps_come_as_are_counted(self, feed, size, shuffled):
        order = (0, 0) if shuffled else None
        found = list(feed.steps("train", size, order))
        assert len(found) == feed.n_steps("train", size, shuffled=shuffled) > 0

    def test_a_shuffled_epoch_leaves_the_smaller_rest_out(self, feed):
        sizes = [len(batch.inputs) for batch in self.steps(feed, order=(0, 0))]
        assert sizes == [self.SIZE] * (feed.n_samples("train") // self.SIZE)

    def test_the_order_is_a_function_of_seed_and_epoch_alone(self, feed):
        first = self.steps(feed, order=(3, 1))
        torch.manual_seed(99)
        torch.rand(5)
        self.steps(feed, order=(4, 4))
        again = self.steps(feed, order=(3, 1))
        assert all(map(self.same, first, again))
        for other in ((3, 2), (4, 1)):
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
                assert torch.equal(torch.cat([share.targets[name] for share in own]), target)

    def test_inputs_are_normalised_by_the_training_part(self, feed):
        ready = feed.inputs.normalise(
            torch.cat([batch.inputs for batch in self.steps(feed)])
        ).double()
        assert ready.mean((0, 2, 3)).abs().max() < 1e-5
        assert (ready.std((0, 2, 3)) - 1).abs().max() < 1e-5
        assert feed.inputs is feed.inputs, "taken once"

    def test_targets_are_those_of_the_schemas_tasks(self, feed):
        for batch in self.steps(feed):
            assert batch.targets.keys() <= set(feed.schema.names)
            assert tuple(batch.inputs.shape[1:]) == feed.schema.shape
            for task in feed.schema.select(tuple(batch.targets)):
                labelled = int(task.n_labels(batch.targets[task.name]))
                assert labelled == len(batch.inputs) or task.name not in feed.schema.complete
