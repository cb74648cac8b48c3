"""The example a backbone is given, or is guessed to take; one input or several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from recon_search.errors import BackboneError
from recon_search.graph.branch import branch
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.cost import cost, layer_graph
from recon_search.graph.example import example_input
from recon_search.graph.layers import backbone_digest, describe, layers
from recon_search.graph.split import Split
from tests import toys
from tests.graph.laws import assert_close, random_split, randomise


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("resnet18", {}, (3, 224, 224)),
        ("resnet18", {"in_chans": 1}, (1, 224, 224)),
        ("tresnet_m", {}, (3, 224, 224)),
        ("tresnet_m", {"in_chans": 1}, (1, 224, 224)),
        ("csatv2", {}, (3, 512, 512)),
        ("levit_128s", {}, (3, 224, 224)),
        ("levit_128s", {"img_size": 64}, (3, 64, 64)),
        ("gcvit_xxtiny", {"img_size": 64}, (3, 64, 64)),
        ("efficientformerv2_s0", {"img_size": 64}, (3, 64, 64)),
        ("volo_d1_224", {"img_size": 64}, (3, 64, 64)),
        ("nest_tiny", {"img_size": 64}, (3, 64, 64)),
        ("crossvit_tiny_240", {}, (3, 240, 240)),
        ("swin_tiny_patch4_window7_224", {"img_size": (64, 96)}, (3, 64, 96)),
        ("vit_tiny_patch16_224", {"img_size": 96, "in_chans": 4}, (4, 96, 96)),
        ("mlp_mixer", {}, (3, 224, 224)),
        ("swiftformer_xs", {}, (3, 224, 224)),
    ],
)
def test_the_size_is_the_one_a_model_is_made_for(
    name: str, arguments: dict[str, Any], size: tuple[int, ...]
) -> None:
    name = {"mlp_mixer": "gmlp_ti16_224"}.get(name, name)
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, **arguments)
        assert tuple(example_input(model).shape) == (2, *size)


def flat(side: int, channels: int = 2) -> nn.Module:
    """A network of one's own, for images of one size."""
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.Linear(4 * (side - 2) ** 2, 2))


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (flat(28), (2, 28, 28)),
        (flat(224, 5), (5, 224, 224)),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), (3, 32)),
        (nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU()), (1, 32, 32, 32)),
        (nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 4, 3)), (3, 32, 32)),
        (nn.Sequential(nn.Linear(7, 4)), (7,)),
    ],
)
def test_the_size_of_a_network_of_ones_own_is_found(
    model: nn.Module, size: tuple[int, ...]
) -> None:
    before = torch.get_rng_state()
    assert tuple(example_input(model).shape) == (2, *size)
    assert torch.equal(torch.get_rng_state(), before)
    network = branch(model, Split.private([next(iter(layers(model)))], ["p", "q"]))
    assert torch.equal(network(torch.ones(3, *size))["p"], model(torch.ones(3, *size)))


def test_a_size_that_cannot_be_guessed_is_asked_for() -> None:
    model = flat(41)
    split = Split.private(["0"], ["p", "q"])
    with pytest.raises(BackboneError, match=r"refuses \(2, 2, 32, 32\) and .*Pass example=\.$"):
        branch(model, split)
    with pytest.raises(BackboneError, match=r"refuses one of shape \(2, 2, 32, 32\)"):
        branch(model, split, example=torch.zeros(2, 2, 32, 32))
    assert branch(model, split, example=torch.zeros(1, 2, 41, 41)).tasks == ("p", "q")


class Sized(nn.Module):
    """A network that only torch.export can follow, for images of one size that none would guess."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Linear(4 * 22 * 22, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 22:
            raise ValueError("22 pixels only")
        out: Tensor = self.second(self.first(x).flatten(1))
        return out


def test_an_example_goes_wherever_a_backbone_is_traced() -> None:
    model, x = Sized(), torch.zeros(2, 3, 22, 22)
    split = Split.private(["second"], ["p", "q"])
    for run in (layers, describe, backbone_digest, layer_graph):
        with pytest.raises(BackboneError, match=r"22 pixels only.*pass example= of the size"):
            run(model)  # type: ignore[operator]
    assert list(layers(model, example=x)) == ["first", "second"]
    assert [row.name for row in describe(model, example=x)] == ["first", "second"]
    assert list(layer_graph(model, example=x).edges) == [("first", "second")]
    assert cost(model, split, example=x).parameters["p",] == 4 * 22 * 22 * 2 + 2
    digest = backbone_digest(model, example=x)
    fitting = Split(split.tasks, split.layers, {"name": "own", "digest": digest})
    assert branch(model, fitting, example=x).split == split


class Two(nn.Module):
    """RGB and depth, each mapped, then added: 2 rgb + 3 depth, and 10 more with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.first = toys.scalar(2)
        self.second = toys.scalar(3)

    def forward(self, rgb: Tensor, depth: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.first(rgb) + self.second(depth)
        return out if mask is None else out + 10 * mask


class Following(Two):
    """The same for torch.export alone."""

    def forward(self, rgb: Tensor, depth: Tensor, mask: Tensor | None = None) -> Tensor:
        if rgb.shape[1] != depth.shape[1]:
            raise ValueError("of one size")
        return super().forward(rgb, depth, mask)


class Keyed(Two):
    """The same from a dict."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["rgb"], batch["depth"])


class Named(Two):
    """The same by name alone."""

    def forward(self, *, rgb: Tensor, depth: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(rgb, depth)


class Listed(Two):
    """The same from a list, which torch.fx cannot take apart."""

    def forward(self, batch: list[Tensor]) -> Tensor:  # type: ignore[override]
        rgb, depth = batch
        return super().forward(rgb, depth)


ONE = torch.ones(2, 1, dtype=torch.float64)


def second_is_ten(model: nn.Module, example: Any) -> BranchedBackbone:
    network = branch(model, Split.private(["second"], ["p", "q"]), example=example)
    with torch.no_grad():
        network.layers()["second"][1].parameters[0].fill_(10)
    return network


@pytest.mark.parametrize("make", [Two, Following])
@pytest.mark.parametrize("example", [(ONE, ONE), {"depth": ONE, "rgb": ONE}])
def test_several_inputs_go_through(make: Callable[[], nn.Module], example: Any) -> None:
    assert list(layers(make(), example=example)) == ["first", "second"]
    network = second_is_ten(make(), example)
    rgb, depth = torch.ones(5, 1).double(), 2 * torch.ones(5, 1).double()
    for training in (True, False):
        found = network.train(training)(rgb, depth)
        assert {task: output[0].item() for task, output in found.items()} == {"p": 8, "q": 22}
    assert list(network(rgb, depth, ["q"])) == list(network(rgb, depth, tasks=["q"])) == ["q"]
    assert network.single("q")(rgb, depth)[0].item() == 22
    assert cost(make(), network.split, example=example).flops[("p",)] == 2
    assert cost(make(), network.split, example=example).total_flops == 6


def test_an_optional_input_takes_part_where_the_example_has_it() -> None:
    network = second_is_ten(Two(), (ONE, ONE, ONE))
    assert network(ONE, ONE, 2 * ONE)["p"][0].item() == 25
    assert list(network(ONE, ONE, ONE, ["p"])) == ["p"]


@pytest.mark.parametrize(
    ("make", "example"),
    [(Keyed, {"rgb": ONE, "depth": ONE}), (Listed, [ONE, ONE]), (Listed, ((ONE, ONE),))],
)
def test_inputs_inside_containers_go_through(make: Callable[[], nn.Module], example: Any) -> None:
    assert list(layers(make(), example=example)) == ["first", "second"]
    network = second_is_ten(make(), example)
    given: Any = {"depth": 2 * ONE, "rgb": ONE} if make is Keyed else [ONE, 2 * ONE]
    assert {task: output[0].item() for task, output in network(given).items()} == {"p": 8, "q": 22}


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (Two(), None, r"takes rgb, depth. Pass example=\(rgb, depth\), a tuple of tensors"),
        (Named(), None, r"must be positional, Named takes rgb by name alone"),
        (Following(), None, r"takes rgb, depth. Pass example="),
        (Two(), (ONE, ONE, ONE, ONE), r"must have the inputs of Two, .*it has 4. Pass a tuple"),
        (Two(), {"rgb": ONE, "mask": ONE}, r"must name the first inputs of Two, .*Name them all"),
        (Two(), (ONE, 3), r"tensors, got tuple with int. Pass what the backbone is called with"),
        (Two(), "images", r"tensors, got str with str. Pass"),
        (Two(), (), r"tensors, got tuple without any. Pass"),
    ],
)
def test_examples_that_do_not_fit_are_refused(model: nn.Module, example: Any, message: str) -> None:
    for run in (
        lambda: layers(model, example=example),
        lambda: branch(model, Split.private(["second"], ["p", "q"]), example=example),
    ):
        with pytest.raises(BackboneError, match=message) as caught:
            run()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [Keyed(), Listed()])
def test_containers_without_an_example_are_asked_for(model: nn.Module) -> None:
    for run in (layers, lambda model: branch(model, Split.private(["second"], ["p", "q"]))):
        with pytest.raises(BackboneError, match="takes a dict or list needs an example") as caught:
            run(model)
        assert "\n" not in str(caught.value)


def test_two_images_make_one_network() -> None:
    """A real network a modality, added, and split at random."""
    torch.manual_seed(0)

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rgb = timm.create_model("test_resnet", num_classes=0)
            self.depth = timm.create_model("test_resnet", num_classes=0, in_chans=1)

        def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
            out: Tensor = self.rgb(rgb) + self.depth(depth)
            return out

    model = Fused().double()
    inputs = (torch.randn(4, 3, 32, 32).double(), torch.randn(4, 1, 32, 32).double())
    names = list(layers(model, example=inputs))
    network = branch(model, random_split(names), example=inputs).train()
    randomise(network, 1)
    plain = {task: network.single(task) for task in network.tasks}
    for task, output in network(*inputs).items():
        assert_close(output, plain[task](*inputs), 1e-12, task)
