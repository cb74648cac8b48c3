"""The multi-task model: a branched timm backbone and one head a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from recon_search import artefact
from recon_search.errors import BackboneError, SplitError, nearest
from recon_search.graph.admission import is_wrapper
from recon_search.graph.branch import branch
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from recon_search.model.backbone import create_backbone
from recon_search.model.container import TaskModules
from recon_search.model.facts import facts_of
from recon_search.model.freezing import copies, freeze, frozen_norms
from recon_search.model.habits import Habits
from recon_search.model.heads import create_heads, read_maps
from recon_search.model.pyramid import pad
from recon_search.model.rotation import RotatedHead, fold_rotations, has_rotations
from recon_search.model.source import untrained
from recon_search.recipe import BackboneConfig, HeadConfig, HeadsConfig
from recon_search.tasks.task import Task

FORMAT = "recon-search/model/3"


class MultiTaskModel(Habits):
    """A branched backbone whose features each task's head reads.

    Args:
        backbone: gives `{task: features}`.
        heads: one head a task.
        config: what `save` needs to build the model anew (see `build_model`).
        still: paths of norms of the backbone that always evaluate: their statistics are frozen.
        multiple: images whose sides are no multiples of it are padded with zeros, and what is
            predicted for every pixel is cut to the image (see `pyramid.Pyramid`).

    Raises:
        BackboneError: the backbone is not branched, or is wrapped.
        SplitError: the heads are not one a task.
    """

    def __init__(
        self,
        backbone: BranchedBackbone,
        heads: Mapping[str, nn.Module],
        config: Mapping[str, Any],
        still: Sequence[str] = (),
        multiple: int = 1,
    ) -> None:
        _check_parts(backbone, heads)
        super().__init__()
        self.multiple = multiple
        self.backbone = backbone
        self.heads = TaskModules(dict(heads))
        self.config = dict(config)
        self.still = tuple(still)
        self._hold_still()
        self._take_data()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return self.backbone.tasks

    @property
    def n_parameters(self) -> int:
        """Learned numbers: parameters, and the rotations that heads carry."""
        rotations = [head.rotation for head in self.heads.values() if isinstance(head, RotatedHead)]
        return sum(tensor.numel() for tensor in (*self.parameters(), *rotations))

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Compute `{task: output}` for images (B, C, H, W), of all tasks or of those named.

        Outputs are (B, n), or (B, n, H, W) where a task reads a pyramid.
        """
        return self.read(self.features(x, tasks), x.shape[-2:])

    def features(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """Compute what the heads of all tasks read, or of those named."""
        found: dict[str, Any] = self.backbone(pad(x, self.multiple), tasks)
        return found

    def read(self, features: Mapping[str, Any], size: Sequence[int]) -> dict[str, Tensor]:
        """Compute the outputs of the tasks whose features are given.

        Args:
            features: what `features` gave.
            size: height and width of the images.
        """
        maps = {task: own for task, own in features.items() if isinstance(own, list)}
        dense = read_maps(self.heads, maps)  # type: ignore[arg-type]
        height, width = size
        return {
            task: dense[task][..., :height, :width] if task in maps else self.heads[task](own)
            for task, own in features.items()
        }

    def train(self, mode: bool = True) -> Self:
        """Set the mode, of frozen norms always that of evaluation."""
        super().train(mode)
        self._hold_still()
        return self

    def save(self, directory: str | Path, **extra: Any) -> None:
        """Write a model directory: `model.safetensors`, `config.json`, `split.json`.

        Rotations are folded into heads that begin with a linear layer; others keep theirs.

        Args:
            directory: made if needed.
            extra: further JSON values for `config.json`, such as `metrics`.
        """
        directory = Path(directory)
        self.backbone.split.save(directory / "split.json")
        heads = TaskModules(dict(self.heads.items()))
        fold_rotations(heads)
        backbone = self.backbone.state_dict(prefix="backbone.")
        state = {**backbone, **heads.state_dict(prefix="heads.")}
        artefact.write_tensors(directory / "model.safetensors", state, {"format": FORMAT})
        own = {**self.config, **self._maps()}
        config = {"format": FORMAT, **own, "rotated": has_rotations(heads), **extra}
        artefact.write_json(directory / "config.json", config)

    def _maps(self) -> dict[str, Any]:
        """What is needed beside the backbone to compute the maps that heads read, if any do."""
        reads = {task: self.backbone.reads(task) for task in self.tasks}
        if "pyramid" not in reads.values():
            return {}
        levels = list(self.backbone.blueprint.call.indices)
        return {"maps": {"reads": reads, "levels": levels, "multiple": self.multiple}}

    def _hold_still(self) -> None:
        for path in self.still:
            self.backbone.get_submodule(path).eval()


def _check_parts(backbone: nn.Module, heads: Mapping[str, nn.Module]) -> None:
    eager = getattr(backbone, "_orig_mod", backbone)  # of a compiled one
    if not isinstance(eager, BranchedBackbone):
        is_wrapped = isinstance(backbone, nn.Module) and is_wrapper(backbone)
        raise BackboneError(
            f"A MultiTaskModel must have a branched backbone, got {type(backbone).__name__}. "
            f"{'Pass its .module.' if is_wrapped else 'Make it with recon_search.branch.'}"
        )
    if unknown := [name for name in heads if name not in eager.tasks]:
        raise SplitError(
            f"The heads of a MultiTaskModel must be named after its tasks "
            f"({', '.join(eager.tasks)}), got '{unknown[0]}'.{nearest(unknown[0], eager.tasks)}"
        )


def build_model(
    backbone: BackboneConfig,
    heads: HeadsConfig | HeadConfig,
    tasks: Sequence[Task],
    *,
    shape: Sequence[int],
    split: Split | None = None,
    init: str = "copy",
    seed: int = 0,
    frozen: Sequence[str] = (),
) -> MultiTaskModel:
    """Build a model from its description.

    Equal seeds give equal weights to every layer and head that models have in common, whatever
    their split and their other tasks: comparisons are paired.

    Args:
        backbone: timm model and arguments.
        heads: what reads its features; one head is that of every task.
        tasks: what is learned.
        shape: of one image, (C, H, W); or (C,), of the size that the backbone is configured for.
        split: which layers to branch; None branches nothing.
        init: `copy` starts the copies of a layer equal, `fresh` draws each anew.
        seed: seed of the initialisation.
        frozen: patterns of what of the backbone is not trained (see `freeze`).

    Raises:
        BackboneError: timm does not know the backbone or refuses its arguments.
        SplitError: the split does not fit the backbone, or names a layer that is frozen.
        RecipeError: a pattern names nothing, or nothing is left to train.
    """
    if isinstance(heads, HeadConfig):
        heads = HeadsConfig(head=heads)
    names = tuple(task.name for task in tasks)
    facts = facts_of(backbone, shape, frozen, tasks=tasks)
    eager = create_backbone(backbone, in_chans=shape[0], seed=seed)
    freeze(eager, frozen)
    plan = split if split is not None else Split(names, {})
    branched = branch(eager, plan, analysis=facts.analysis)
    if init == "fresh":
        _draw_copies(branched, backbone, shape[0], seed, frozen)
    config = {
        "backbone": facts.config.model_dump(exclude={"weights", "pretrained"}),
        **heads.model_dump(exclude_defaults=True),
        "head": heads.head.model_dump(),
        "tasks": [task.spec() for task in tasks],
    }
    made = create_heads(heads, facts.width, tasks, pyramid=facts.pyramid, seed=seed)
    still = list(copies(branched, frozen_norms(eager, frozen)))
    multiple = 1 if facts.pyramid is None else facts.pyramid.multiple
    return MultiTaskModel(branched, made, config, still, multiple)


@torch.no_grad()
def _draw_copies(
    branched: BranchedBackbone,
    config: BackboneConfig,
    in_chans: int,
    seed: int,
    frozen: Sequence[str],
) -> None:
    """Initialise the second and later copies of every split layer independently."""
    blocks_by_layer = branched.layers()
    for index in range(1, len(branched.tasks)):
        drawn_anew = create_backbone(
            untrained(config),
            in_chans=in_chans,
            seed=int(artefact.digest([seed, "copy", index])[:8], 16),
        )
        freeze(drawn_anew, frozen)
        fresh = layers(drawn_anew)
        for name, blocks in blocks_by_layer.items():
            if index < len(blocks):
                for parameter, drawn in zip(blocks[index].parameters, fresh[name], strict=True):
                    parameter.copy_(drawn)
