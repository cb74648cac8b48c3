"""The example of a training loop of one's own runs, shortened, and does what it says."""

import timm
import torch

from tests.stages.recipes import import_recipe


def test_the_example_of_a_loop_of_ones_own_measures_splits_and_trains_on(capsys):
    own_loop = import_recipe("own_loop")
    joint, split = own_loop.main(epochs=1, k=2)
    said = capsys.readouterr().out
    assert said.startswith("5 measured steps; split: ")  # of 19, every fourth
    layers = split.backbone.split.layers
    assert len(layers) == 2
    assert not joint.backbone.split.layers
    assert all(layer in said for layer in layers)
    assert split.n_parameters > joint.n_parameters
    plain = timm.create_model("resnet18", in_chans=1, channels=[4, 4, 8, 8], num_classes=0).eval()
    plain.load_state_dict(split.backbone.task_state_dict("ink"), strict=True)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(images), split.eval().features(images)["ink"])


def test_a_step_without_measuring_trains_alike():
    own_loop = import_recipe("own_loop")
    data, _ = own_loop.load(n_train=128)
    first, second = own_loop.build(), own_loop.build()
    assert own_loop.train(first, data, epochs=1, every=1).steps == 2
    assert own_loop.train(second, data, epochs=1, every=2).steps == 1
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
