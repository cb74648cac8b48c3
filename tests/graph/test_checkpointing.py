"""A checkpointed network learns the same bits in less memory: as little as timm's own needs."""

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

import recon_search as rs
from recon_search.graph.analysis import analyse
from recon_search.graph.checkpointing import find_cuts
from tests.memory import PeakMemory

VIT = {"img_size": 64, "depth": 6, "embed_dim": 24, "num_heads": 3, "patch_size": 8}
MODELS = {
    "vit_tiny_patch16_224": {**VIT, "drop_path_rate": 0.3, "proj_drop_rate": 0.2},
    "convnext_atto": {"depths": [2, 2, 6, 2], "dims": [8, 8, 16, 16], "drop_path_rate": 0.2},
    "mobilenetv3_small_100": {"drop_rate": 0.2},
    "resnet50": {"channels": [4, 4, 8, 8], "stem_width": 4},
    "test_resnet": {},
}


def create(name, is_split):
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=0, **MODELS[name]).train()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    names = list(rs.layers(plain))
    split = names[len(names) // 2 :: len(names) // 4] if is_split else []
    return plain, rs.branch(plain, rs.Split.private(split, ["a", "b", "c"]))


def checkpointed(network):
    other = copy.deepcopy(network)
    other.set_grad_checkpointing()
    return other


def images(size=2):
    return torch.randn(size, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def task_gradients(network, x):
    """Every task's own gradient, in turn, as methods take them."""
    torch.manual_seed(1)
    parameters = list(network.parameters())
    losses = [feature.square().mean() for feature in network(x).values()]
    return [
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for loss in losses
    ]


@pytest.mark.parametrize("is_split", [False, True], ids=["unsplit", "split"])
@pytest.mark.parametrize("name", MODELS)
def test_every_tasks_gradient_and_the_statistics_have_the_same_bits(name, is_split):
    """Dropout included; however often activations are computed anew."""
    _, network = create(name, is_split)
    other = checkpointed(network)
    for mine, theirs in zip(
        task_gradients(other, images()), task_gradients(network, images()), strict=True
    ):
        for found, expected in zip(mine, theirs, strict=True):
            assert (found is None) is (expected is None)
            assert found is None or torch.equal(found, expected)
    for key, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_100"])
def test_it_takes_as_little_memory_as_timms_own(name):
    plain, network = create(name, is_split=False)
    own = copy.deepcopy(plain)
    own.set_grad_checkpointing(True)

    def peak(module):
        with PeakMemory() as memory:
            features = module(images(8))
            features = features["a"] if isinstance(features, dict) else features
            loss = features.square().mean()
            del features
            loss.backward()
        return memory.peak

    needed = peak(checkpointed(network))
    assert needed < 0.7 * peak(network)
    assert needed < 1.15 * peak(own)


def test_copies_and_pickles_keep_it_and_it_can_be_undone():
    _, network = create("vit_tiny_patch16_224", is_split=True)

    def saved(module):
        """Bytes kept for the backward pass."""
        kept = []

        def pack(tensor):
            kept.append(tensor.untyped_storage().nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module(images())
        return sum(kept)

    other = checkpointed(network)
    few, many = saved(other), saved(network)
    assert few < 0.3 * many, "hooks inside a part are checkpoint's own"
    assert saved(copy.deepcopy(other)) == few
    assert saved(pickle.loads(pickle.dumps(other))) == few
    assert saved(network) == many, "copies have functions of their own"
    other.set_grad_checkpointing(enable=False)
    assert saved(other) == many


def test_evaluation_is_as_before():
    _, network = create("test_resnet", is_split=True)
    other = checkpointed(network)
    for module in (network, other):
        module.eval()
    for task, features in network(images()).items():
        assert torch.equal(other(images())[task], features)
        assert torch.equal(other(images(), ["b"])["b"], network(images(), ["b"])["b"])


class Writes(nn.Module):
    """Values that are overwritten much later than they are made, through views as well."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))
        self.register_buffer("seen", torch.ones(()))

    def forward(self, x):
        kept = self.layers[0](x)
        view = kept[:, :3]
        for number, layer in enumerate(self.layers[1:]):
            x = layer(x).tanh()
            if number == 3:
                x = x + kept
                view.add_(1.0)
            if number == 7:
                kept.mul_(x.sigmoid())
        x = x * self.seen.clone()
        self.seen.add_(1)
        return x * self.seen.clone() + kept


@pytest.mark.parametrize("split", [[], ["layers.2"], ["layers.0", "layers.9"]], ids=str)
def test_what_writes_into_a_value_is_never_cut_off_from_it(split):
    torch.manual_seed(0)
    plain = Writes().double().train()
    x = torch.randn(5, 6, dtype=torch.float64)
    network = rs.branch(plain, rs.Split.private(split, ["a", "b"]), example=x)
    other = checkpointed(network)
    for mine, theirs in zip(task_gradients(other, x), task_gradients(network, x), strict=True):
        for found, expected in zip(mine, theirs, strict=True):
            assert (found is None) is (expected is None)
            assert found is None or torch.equal(found, expected)
    analysis = analyse(plain, x)
    nodes = list(analysis.trace.graphs[True].nodes)
    cuts = find_cuts(analysis.trace.graphs[True], analysis.effects[True]).places
    first = next(i for i, node in enumerate(nodes) if node.target == "layers.0")
    last = max(i for i, node in enumerate(nodes) if node.target == "mul_")
    assert cuts.isdisjoint(range(first, last))
    assert last in cuts
    for name, buffer in network.named_buffers():
        assert torch.equal(other.get_buffer(name), buffer)
        assert buffer == 2, "counted once, however often it was computed"
