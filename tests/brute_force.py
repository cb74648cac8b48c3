"""The plain and slow way to count conflicts, from the definition."""

import itertools

import torch
import torch.nn.functional as F


def task_losses(backbone, n_tasks, seed):
    """Losses of random linear tasks on random images, for one step."""
    generator = torch.Generator().manual_seed(seed)
    size = 32
    images = torch.randn(4, 1, size, size, generator=generator, dtype=torch.float64)
    features = backbone(images)
    losses = []
    for _ in range(n_tasks):
        head = torch.randn(features.shape[1], 5, generator=generator, dtype=torch.float64)
        target = torch.randint(5, (4,), generator=generator)
        losses.append(F.cross_entropy(features @ head, target))
    return losses


def brute_force_counts(steps, layers, threshold):
    """Count, for each layer and pair of tasks, the steps whose gradients have cos < threshold."""
    n_tasks = len(steps[0])
    pairs = list(itertools.combinations(range(n_tasks), 2))
    counts = torch.zeros(len(layers), len(pairs), dtype=torch.int64)
    for losses in steps:
        for row, parameters in enumerate(layers.values()):
            gradients = [
                torch.cat(
                    [g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)]
                )
                for loss in losses
            ]
            for column, (i, j) in enumerate(pairs):
                cosine = F.cosine_similarity(gradients[i], gradients[j], dim=0, eps=0)
                counts[row, column] += int(cosine < threshold)
    return counts
