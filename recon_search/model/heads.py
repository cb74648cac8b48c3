"""Heads: from the features of a backbone to a task's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recon_search.errors import RecipeError
from recon_search.imports import call, is_import_path
from recon_search.model.backbone import seeded
from recon_search.model.dense import DECODERS, PixelHead, create_decoder, try_out
from recon_search.model.pyramid import Pyramid
from recon_search.recipe import HeadConfig, HeadsConfig, NeckConfig
from recon_search.tasks.task import Task

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}


class NeckedHead(nn.Module):
    """A head that reads features through a neck, which heads of other tasks may share.

    Args:
        neck: from features to what the head reads.
        head: from that to the output.
    """

    def __init__(self, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.head = head

    def forward(self, features: Any) -> Tensor:
        """Read through the neck."""
        output: Tensor = self.head(self.neck(features))
        return output


@dataclass(frozen=True)
class _Read:
    """What a head or neck reads: vectors of a width, or maps with channels and reductions."""

    width: int = 0
    channels: tuple[int, ...] = ()
    reductions: tuple[int, ...] = ()

    @property
    def sizes(self) -> tuple[Any, ...]:
        """What tells a module of one's own of it."""
        return (list(self.channels), list(self.reductions)) if self.channels else (self.width,)


def create_heads(
    config: HeadsConfig,
    width: int,
    tasks: Sequence[Task],
    *,
    pyramid: Pyramid | None = None,
    seed: int = 0,
) -> dict[str, nn.Module]:
    """Create the heads of tasks, by name; those that name a neck share it.

    Equal seeds give equal weights to every head and neck, whatever the other tasks are.

    Args:
        config: the heads.
        width: d of the features (B, d).
        tasks: say how many numbers each head gives, and what it reads.
        pyramid: what heads read that predict for every pixel.
        seed: of the initialisation.

    Raises:
        RecipeError: a head or a neck of one's own cannot be imported, called so, or is no module;
            or one is of a kind that does not read what its task does.
    """
    necks: dict[str, tuple[nn.Module, _Read]] = {}
    heads: dict[str, nn.Module] = {}
    of_neck: dict[str, Task] = {}
    for task in tasks:
        own = config.of(task.name)
        if own.neck is not None and of_neck.setdefault(own.neck, task).reads != task.reads:
            first = of_neck[own.neck]
            raise RecipeError(
                f"Tasks that share a neck must read alike, [necks.{own.neck}] is that of "
                f"'{first.name}', which reads a {first.reads}, and of '{task.name}', which reads a "
                f"{task.reads}. Give each kind a neck of its own."
            )
        read = _Read(width)
        if task.reads == "pyramid":
            assert pyramid is not None, "whoever makes heads of such tasks knows their pyramid"
            read = _Read(0, pyramid.channels, pyramid.reductions)
        _check_kind(task, own, None if own.neck is None else config.necks[own.neck])
        if own.neck is not None and own.neck not in necks:
            with seeded(seed, f"neck {own.neck}"):
                necks[own.neck] = create_neck(config.necks[own.neck], read)
        with seeded(seed, task.name):
            if own.neck is None:
                heads[task.name] = create_head(own, read, task.n_outputs)
            else:
                neck, given = necks[own.neck]
                heads[task.name] = NeckedHead(neck, create_head(own, given, task.n_outputs))
    return heads


def _check_kind(task: Task, head: HeadConfig, neck: NeckConfig | None) -> None:
    """Make sure that head and neck read what their task does."""
    of_maps = task.reads == "pyramid"
    known = {"linear", "mlp", *(DECODERS if of_maps else ())}
    if not head.is_own and head.kind not in known:
        raise RecipeError(
            f"`head.kind` of task '{task.name}', which reads a {task.reads}, must be one of "
            f"{', '.join(sorted(known))}, got '{head.kind}'. Set tasks.{task.name}.head.kind."
        )
    known = {*DECODERS} if of_maps else {"mlp"}
    if neck is not None and not is_import_path(neck.kind) and neck.kind not in known:
        raise RecipeError(
            f"`necks.{head.neck}.kind` of task '{task.name}', which reads a {task.reads}, must be "
            f"one of {', '.join(sorted(known))}, got '{neck.kind}'. Set necks.{head.neck}.kind."
        )


def create_neck(config: NeckConfig, read: _Read) -> tuple[nn.Module, _Read]:
    """Create a neck: the features' activation and a hidden layer, or a decoder; or one's own.

    Args:
        config: what neck. A `kind` "package.module:name" is called with the width, or the lists of
            channels and reductions, and with `args` by keyword, and returns a module.
        read: what it reads.

    Returns:
        The neck, and what heads read of it.

    Raises:
        RecipeError: a neck of one's own cannot be imported, called so, or is no module.
    """
    if config.kind in DECODERS:
        decoder = create_decoder(
            config.kind, read.channels, read.reductions, config.hidden, config.args
        )
        return decoder, _Read(0, tuple(decoder.channels), tuple(decoder.reductions))
    if not is_import_path(config.kind):
        hidden = nn.Linear(read.width, config.hidden)
        neck: nn.Module = nn.Sequential(ACTIVATIONS[config.activation](), hidden, nn.ReLU())
        return neck, _Read(config.hidden)
    neck = _own(config.kind, "`necks` kind", *read.sizes, **config.args)
    if read.channels:
        return neck, _maps_of(neck, config.kind, read)
    with torch.no_grad():
        given = neck.eval()(torch.zeros(2, read.width))
    neck.train()
    if not isinstance(given, Tensor) or given.ndim != 2:
        raise RecipeError(
            f"A neck must turn features (B, {read.width}) into (B, d), {config.kind} gave "
            f"{_shape(given)}. Mend it."
        )
    return neck, _Read(given.shape[1])


def _maps_of(neck: nn.Module, kind: str, read: _Read) -> _Read:
    """Find out what maps a neck of one's own gives."""
    given, side = try_out(neck, *read.sizes)
    maps = list(given) if isinstance(given, list | tuple) else [given]
    for each in maps:
        if not isinstance(each, Tensor) or each.ndim != 4 or side % each.shape[-1]:
            raise RecipeError(
                f"A neck must turn maps into a list of maps (B, C, H, W) of whole reductions, "
                f"{kind} gave {_shape(each)} for images of {side} x {side}. Mend it."
            )
    return _Read(0, tuple(m.shape[1] for m in maps), tuple(side // m.shape[-1] for m in maps))


def create_head(config: HeadConfig, read: _Read, n_outputs: int) -> nn.Module:
    """Create a head: the features' activation, then a linear layer or an MLP; or one's own.

    On maps these are convolutions of size 1 on the last, and a decoder may come first.

    Args:
        config: what head. A `kind` "package.module:name" is called with the width, or the lists of
            channels and reductions, the number of outputs, and with `args` by keyword; it returns
            a module that gives (B, n_outputs), or (B, n_outputs, H, W) as large as the image.
        read: what it reads.
        n_outputs: numbers that the head gives.

    Raises:
        RecipeError: a head of one's own cannot be imported, called so, or is no module.
    """
    if config.is_own:
        head = _own(config.kind, "`head.kind`", *read.sizes, n_outputs, **config.args)
        if read.channels:
            given, side = try_out(head, *read.sizes)
            if not isinstance(given, Tensor) or given.shape != (2, n_outputs, side, side):
                raise RecipeError(
                    f"A head that reads maps must give (B, {n_outputs}, H, W) as large as the "
                    f"image, {config.kind} gave {_shape(given)} for 2 images of {side} x {side}. "
                    "Enlarge by the reductions it is given."
                )
        return head
    activation = ACTIVATIONS[config.activation]()
    hidden = config.hidden if config.kind == "mlp" else 0
    if config.kind in DECODERS:
        decoder = create_decoder(
            config.kind, read.channels, read.reductions, config.hidden, config.args
        )
        sizes = decoder.channels, decoder.reductions
        return NeckedHead(decoder, PixelHead(*sizes, n_outputs, 0, activation))
    if read.channels:
        return PixelHead(read.channels, read.reductions, n_outputs, hidden, activation)
    parts: list[nn.Module] = [activation]
    width = read.width
    if hidden:
        parts += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*parts, nn.Linear(width, n_outputs))


def read_maps(
    heads: Mapping[str, nn.Module], maps: Mapping[str, list[Tensor]]
) -> dict[str, Tensor]:
    """Compute what heads make of maps; a decoder that several share runs once on equal maps."""
    decoded: dict[tuple[int, ...], Any] = {}
    outputs = {}
    for task, own in maps.items():
        head = heads[task]
        if isinstance(head, NeckedHead):
            key = (id(head.neck), *map(id, own))
            if key not in decoded:
                decoded[key] = head.neck(own)
            outputs[task] = head.head(decoded[key])
        else:
            outputs[task] = head(own)
    return outputs


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _own(kind: str, what: str, *args: Any, **kwargs: Any) -> nn.Module:
    """Make a module of one's own."""
    made = call(kind, what, *args, **kwargs)
    if not isinstance(made, nn.Module):
        raise RecipeError(
            f"{what} must make a torch.nn.Module, {kind} made {type(made).__name__}. Return one."
        )
    return made
