"""Generators are put back, those of several GPUs without a warning."""

import warnings

import pytest
import torch

from recon_search.chance import forked


def test_what_is_drawn_in_a_block_changes_nothing_after_it():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with forked():
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_every_gpu_is_put_back_and_torch_does_not_warn(n, monkeypatch):
    states = {device: 10 * device for device in range(n)}
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: n)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, d: states.update({d: state}))
    before = dict(states)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with forked():
            states.update(dict.fromkeys(states, -1))
    assert states == before
