"""What is refused before it is traced, each in one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import prune

from recon_search.errors import BackboneError
from recon_search.graph.branch import branch
from recon_search.graph.layers import describe, layers
from recon_search.graph.split import Split
from tests import toys
from tests.graph.laws import check_paths

ONE = torch.ones(2, 1, dtype=torch.float64)


class Nested(nn.Module):
    """x -> body(block(x)), where the block is a residual one."""

    def __init__(self) -> None:
        super().__init__()
        self.block = toys.Residual()
        self.body = toys.scalar(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(self.block(x))
        return out


def refusal(run: Callable[[], object]) -> str:
    """Return the message of a refusal, which must be one line."""
    with pytest.raises(BackboneError, match=r"\.$") as caught:
        run()
    message = str(caught.value)
    assert "\n" not in message
    return message


def both_refuse(module: nn.Module, *parts: str) -> None:
    split = Split.private([], ["p", "q"])
    for run in (lambda: layers(module), lambda: branch(module, split)):
        message = refusal(run)
        assert all(part in message for part in parts), message


SEEN: dict[str, Any] = {}

LOOKERS: dict[str, Callable[..., Any]] = {
    "stores": lambda module, inputs, output: SEEN.__setitem__("x", output),
    "stores what it computes": lambda module, inputs, output: SEEN.update(x=output.detach() * 2),
    "returns what it got": lambda module, inputs, output: SEEN.update(x=output) or output,
}


@pytest.mark.parametrize("name", ["", "block"])
@pytest.mark.parametrize("hook", LOOKERS.values(), ids=LOOKERS)
def test_hooks_that_only_look_on_are_refused(name: str, hook: Callable[..., Any]) -> None:
    SEEN.clear()
    model = Nested()
    part = model.get_submodule(name)
    handle = part.register_forward_hook(hook)
    where = f"module '{name}'" if name else "the backbone itself"
    both_refuse(model, f"one on {where} of Nested only looks on", "Remove it before branching")
    assert not any(isinstance(value, fx.Proxy) for value in SEEN.values())
    handle.remove()
    part.register_forward_pre_hook(lambda module, inputs: SEEN.update(x=inputs[0]))
    both_refuse(model, f"one on {where} of Nested only looks on")
    assert not any(isinstance(value, fx.Proxy) for value in SEEN.values())


def test_hooks_of_the_backward_pass_are_refused() -> None:
    model = Nested()
    model.block.register_full_backward_hook(lambda module, before, after: None)
    both_refuse(model, "one on module 'block' of Nested is for the backward pass")


def test_hooks_that_change_and_keep_what_they_see_are_refused() -> None:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        SEEN["x"] = output
        return output * 2

    model = Nested()
    model.block.register_forward_hook(hook)
    both_refuse(model, "must not keep what it sees")
    SEEN.clear()


def test_hooks_that_change_something_are_traced() -> None:
    model = Nested()
    model.block.register_forward_hook(lambda module, inputs, output: output * 10)
    model.block.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    network = branch(model, Split.private(["block.body"], ["p", "q"]))
    assert network(ONE)["p"][0].item() == model(ONE)[0].item() == 10 * (4 + 13)
    check_paths(network, ONE)


def test_hooks_on_modules_that_stay_whole_run_once_a_branch() -> None:
    model = Nested()
    seen: list[Tensor] = []
    model.body.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network = branch(model, Split.private(["block.body"], ["p", "q"]))
    seen.clear()
    outputs = network(ONE)
    assert [output is kept for output, kept in zip(outputs.values(), seen, strict=True)] == [
        True,
        True,
    ]


def test_global_hooks_see_no_stand_ins() -> None:
    seen: list[Any] = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, i, o: seen.append(o))
    try:
        branch(Nested(), Split.private(["block.body"], ["p", "q"]))
    finally:
        handle.remove()
    assert not any(isinstance(value, fx.Proxy) for value in seen)


def pruned() -> nn.Module:
    model = Nested()
    prune.l1_unstructured(model.block.stem, "weight", amount=0.5)
    return model


def pruned_twice() -> nn.Module:
    model = pruned()
    prune.random_unstructured(model.block.stem, "weight", amount=0.5)
    return model


def with_part(make: Callable[[nn.Module], Any]) -> nn.Module:
    model = Nested()
    model.block = make(model.block)
    return model


@pytest.mark.parametrize(
    ("make", "found", "then"),
    [
        (lambda: torch.compile(Nested()), "this one is compiled", "Pass its ._orig_mod."),
        (
            lambda: with_part(torch.compile),
            "its module 'block' is compiled",
            "Put backbone.block._orig_mod in its place.",
        ),
        (lambda: nn.DataParallel(Nested()), "wrapped in DataParallel", "Pass its .module."),
        (
            lambda: with_part(nn.DataParallel),
            "its module 'block' is wrapped in DataParallel",
            "Put backbone.block.module in its place.",
        ),
        (lambda: torch.jit.trace(Nested(), ONE), "a TorchScript program", "Pass the eager module"),
        (
            lambda: with_part(lambda part: torch.jit.trace(part, ONE)),
            "its module 'block' is a TorchScript program",
            "Pass the eager module",
        ),
        (
            pruned,
            "'block.stem' is pruned ('weight')",
            "torch.nn.utils.prune.remove(backbone.block.stem, 'weight')",
        ),
        (pruned_twice, "'block.stem' is pruned ('weight')", "prune.remove(backbone.block.stem"),
        (lambda: "resnet18", "must be a torch.nn.Module, got str", "Pass the module"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_modules_that_hide_their_layers_are_told_apart(
    make: Callable[[], nn.Module], found: str, then: str
) -> None:
    both_refuse(make(), found, then)


def test_what_the_advice_gives_goes_through() -> None:
    expected = list(layers(Nested()))
    model = pruned()
    prune.remove(model.block.stem, "weight")
    assert list(layers(model)) == expected
    assert list(layers(torch.compile(Nested())._orig_mod)) == expected
    assert list(layers(nn.DataParallel(Nested()).module)) == expected


def test_a_frozen_backbone_has_no_layers_and_can_be_branched_unsplit() -> None:
    model = Nested().requires_grad_(False)
    for run in (layers, describe):
        message = refusal(lambda run=run: run(model))
        assert "Nested has 5 parameters and all are frozen" in message
    network = branch(model, Split.private([], ["p", "q"]))
    assert torch.equal(network(ONE)["q"], model(ONE))
    assert "has 0 parameters" in refusal(lambda: layers(nn.ReLU()))
