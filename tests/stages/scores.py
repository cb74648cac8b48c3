"""Scores without a probe."""

import torch

from recon_search.conflict.scores import ConflictScores
from recon_search.model.facts import facts_of

TASKS = ("left", "right")


def noisy_scores(recipe):
    """Scores of random gradients."""
    facts = facts_of(recipe.backbone, (1, 12, 12))
    infos = facts.analysis.infos
    metadata = {
        "backbone": facts.identity,
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
