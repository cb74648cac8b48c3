"""What timm's optimisers and helpers ask of a model, answered for a backbone with heads."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.habits import LAST

_DATA = (
    *("default_cfg", "pretrained_cfg", "pretrained_model_args", "_model_args", "_traits"),
    *("in_chans", "num_classes", "num_features", "head_hidden_size", "feature_info"),
)


class Habits(nn.Module):
    """A backbone, whose answers are passed on, and heads, which are timm's last group of layers."""

    backbone: BranchedBackbone
    heads: nn.ModuleDict

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that are kept from weight decay."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """Return what tells timm the group of layers of a parameter, for layer-wise decay."""
        matcher = self.backbone.group_matcher(coarse=coarse)

        def group(path: str) -> float:
            owner, _, name = path.partition(".")
            return matcher(name) if owner == "backbone" else LAST

        return group

    def get_classifier(self) -> nn.ModuleDict:
        """Return the heads."""
        return self.heads

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let the backbone compute activations twice in training, to keep fewer."""
        self.backbone.set_grad_checkpointing(enable)

    def layer_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of all copies of every splittable layer of the backbone."""
        return self.backbone.layer_parameters()

    def _take_data(self) -> None:
        """Take over what the backbone says of itself."""
        for name in _DATA:
            if hasattr(self.backbone, name):
                setattr(self, name, getattr(self.backbone, name))
