"""Scores without a probe."""

import torch

from recon_search.conflict.scores import ConflictScores
from recon_search.graph.layers import describe
from recon_search.model.backbone import create_backbone
from recon_search.runs.training import backbone_identity

TASKS = ("left", "right")


def noisy_scores(recipe):
    """Scores of random gradients."""
    backbone = create_backbone(recipe.backbone, in_chans=1)
    infos = describe(backbone)
    metadata = {
        "backbone": backbone_identity(recipe.backbone, backbone),
        "layer_infos": [
            {"name": i.name, "type": i.type, "n_parameters": i.n_parameters, "is_norm": i.is_norm}
            for i in infos
        ],
        "recipe": "",
        "seeds": [0],
    }
    scores = ConflictScores([info.name for info in infos], TASKS, metadata)
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        jacobians = torch.randn(len(infos), 2, 5, generator=generator)
        scores.update(jacobians @ jacobians.mT, at=step / 20)
    return scores
