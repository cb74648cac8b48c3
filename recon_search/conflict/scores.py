"""Conflict scores: every threshold and every ranking rule from one probe, in constant memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_search import artefact
from recon_search.errors import ArtefactError, RecipeError, TrainingError

FORMAT = "recon-search/scores/2"
N_BINS = 200
N_WINDOWS = 10
N_HALVES = 2
BLOCKS = (N_WINDOWS, N_HALVES)
"""The parts of one probe that are summed apart."""

_EDGES = torch.arange(-N_BINS // 2 + 1, N_BINS // 2, dtype=torch.float64) / (N_BINS // 2)


class ConflictScores:
    """What a probe has measured, added up over its steps.

    Cosines between the tasks' gradients of a layer are kept as a histogram with bins of width
    0.01, so that the S-conflict score of Recon (arXiv 2302.11289, Definitions 2 and 3: how often
    cos < S, strictly) is exact for every S that is a multiple of 0.01. Scores of several probes
    (seeds, workers, runs that went on) add up by `+`.

    A probe is cut into ten windows of equal length; rules that look at a part of it read the
    windowed sums. Measured steps alternate between two halves, and each probe has sums of its own,
    so that a ranking can be checked against itself. With cos, n and N the cosine, the layer's and
    the whole network's gradient norms of tasks i and j at one step, the sums over the steps of a
    window are

    - `projection`: relu(-cos) min(n_i, n_j) / sqrt(N_i N_j), what PCGrad takes from the smaller
      gradient;
    - `mass`: relu(-G_ij) / (N_i N_j);
    - `inner`: G_ij / (N_i N_j), signed.

    Inner products between consecutive batches are not kept: they need a second set of gradients a
    task, and gains made of them foretold the benefit of a split less well than these.

    Args:
        layers: names of the L layers, in graph order.
        tasks: names of the T tasks; pairs are (0, 1), (0, 2), ... in lexicographic order.
        metadata: JSON values that travel with the scores (backbone, layer types, seeds ...).
    """

    def __init__(
        self,
        layers: Sequence[str],
        tasks: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.tasks = tuple(tasks)
        self.metadata = dict(metadata or {})
        n_layers, n_pairs = len(self.layers), len(self.pairs)
        self.tensors = {
            "counts": torch.zeros(n_layers, n_pairs, N_BINS, dtype=torch.int64),
            # By probe, window and half:
            "window_counts": torch.zeros(1, *BLOCKS, n_layers, N_BINS, dtype=torch.int64),
            "window_steps": torch.zeros(1, *BLOCKS, dtype=torch.int64),
            **{
                name: torch.zeros(1, *BLOCKS, n_layers, n_pairs, dtype=torch.float64)
                for name in ("projection", "mass", "inner")
            },
        }

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The task pairs, in the order of the tensors' pair dimension."""
        return list(itertools.combinations(self.tasks, 2))

    @property
    def steps(self) -> int:
        """Number of measured steps."""
        return int(self.tensors["window_steps"].sum())

    @property
    def n_probes(self) -> int:
        """Number of probes that were added up."""
        return len(self.tensors["window_steps"])

    @torch.no_grad()
    def update(self, gramians: Tensor, at: float = 0.0) -> None:
        """Add one step, to the last probe of those added up.

        Args:
            gramians: (L, T, T). A zero gradient has cosine 0 and conflicts with nobody.
            at: how much of the probe lies behind this step, in [0, 1); chooses the window.

        Raises:
            TrainingError: a Gramian is not finite; nothing is added.
        """
        if gramians.shape != (len(self.layers), len(self.tasks), len(self.tasks)):
            raise ValueError(
                f"gramians must be of shape (L, T, T) = ({len(self.layers)}, {len(self.tasks)}, "
                f"{len(self.tasks)}), got {tuple(gramians.shape)}."
            )
        gramians = gramians.double()
        finite = gramians.isfinite().flatten(1).all(1)  # (L,)
        if not bool(finite.all()):
            raise TrainingError(
                "Gradients must be finite to be measured, those of layer "
                f"'{self.layers[int((~finite).nonzero()[0])]}' are not, at measured step "
                f"{self.steps + 1}. Lower train.lr, or add train.clip_grad."
            )
        device = gramians.device
        if self.tensors["counts"].device != device:
            self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        window = min(int(at * N_WINDOWS), N_WINDOWS - 1)
        block = -1, window, self.steps % N_HALVES
        first, second = torch.triu_indices(len(self.tasks), len(self.tasks), 1, device=device)

        squares = gramians.diagonal(dim1=1, dim2=2)  # (L, T)
        inner = gramians[:, first, second]  # (L, pairs)
        lengths = (squares[:, first] * squares[:, second]).sqrt()
        cosines = torch.where(lengths > 0, inner / lengths, 0.0)
        bins = torch.bucketize(cosines, _EDGES.to(device), right=True)  # (L, pairs)
        ones = torch.ones_like(bins)
        self.tensors["counts"].scatter_add_(2, bins[..., None], ones[..., None])
        self.tensors["window_counts"][block].scatter_add_(1, bins, ones)
        self.tensors["window_steps"][block] += 1

        whole = squares.sum(0)  # (T,)
        scale = (whole[first] * whole[second]).sqrt()  # N_i N_j, (pairs,)
        scale = torch.where(scale > 0, scale, torch.inf)
        shorter = torch.minimum(squares[:, first], squares[:, second]).sqrt()
        self.tensors["projection"][block] += cosines.neg().relu() * shorter / scale.sqrt()
        self.tensors["mass"][block] += inner.neg().relu() / scale
        self.tensors["inner"][block] += inner / scale

    def counts(self, threshold: float = 0.0) -> Tensor:
        """Count for each layer and pair the steps with cos < `threshold`, strictly.

        Args:
            threshold: S in (-1, 0], a multiple of 0.01.

        Returns:
            int64 counts of shape (L, pairs).

        Raises:
            RecipeError: the threshold is out of range or no multiple of 0.01.
        """
        return self.tensors["counts"][..., : bins_below(threshold)].sum(-1)

    def blocks(self, name: str, threshold: float = 0.0) -> Tensor:
        """Read a windowed sum, pairs pooled.

        Args:
            name: `counts` (cos < threshold), `projection`, `mass` or `inner`.
            threshold: S, for `counts`.

        Returns:
            float64 sums of shape (probes, windows, halves, L).
        """
        if name == "counts":
            counts = self.tensors["window_counts"][..., : bins_below(threshold)]
            return counts.sum(-1).double()
        return self.tensors[name].sum(-1)

    def share(self, threshold: float = 0.0) -> float:
        """Share of (step, layer, pair) triples that conflict, in [0, 1]; 0 before any step."""
        counts = self.counts(threshold)
        return float(counts.sum()) / max(1, self.steps * counts.numel())

    def rank(self, threshold: float = 0.0) -> list[str]:
        """Order the layers by conflict, highest S-conflict score first, ties in graph order."""
        totals = self.counts(threshold).sum(-1)
        order = totals.argsort(descending=True, stable=True)
        return [self.layers[index] for index in order.tolist()]

    def __add__(self, other: ConflictScores) -> ConflictScores:
        ours, theirs = (
            backbone.get("digest") if isinstance(backbone, Mapping) else None
            for backbone in (each.metadata.get("backbone") for each in (self, other))
        )
        if ours and theirs and ours != theirs:
            raise ArtefactError(
                f"Scores can be added only for one backbone, got digests {ours} and {theirs}. "
                "Probe one recipe."
            )
        if (self.layers, self.tasks) != (other.layers, other.tasks):
            raise ArtefactError(
                "Scores can be added only for equal layers and tasks, got "
                f"{len(self.layers)} layers of {', '.join(self.tasks)} and "
                f"{len(other.layers)} layers of {', '.join(other.tasks)}. Probe one recipe."
            )
        total = ConflictScores(self.layers, self.tasks, self.metadata)
        seeds = [*self.metadata.get("seeds", []), *other.metadata.get("seeds", [])]
        if seeds:
            total.metadata["seeds"] = seeds
        for name, tensor in self.tensors.items():
            both = tensor.cpu(), other.tensors[name].cpu()
            total.tensors[name] = both[0] + both[1] if name == "counts" else torch.cat(both)
        return total

    def save(self, path: str | Path) -> None:
        """Write `scores.safetensors` atomically."""
        metadata = {
            **self.metadata,
            "format": FORMAT,
            "layers": self.layers,
            "tasks": self.tasks,
            "steps": self.steps,
            "bins": [-1.0, *_EDGES.tolist(), 1.0],
        }
        artefact.write_tensors(path, self.tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> ConflictScores:
        """Read what `save` wrote.

        Raises:
            ArtefactError: the file is missing, damaged, or of another format.
        """
        tensors, metadata = artefact.read_tensors(path, "scores file")
        artefact.check_format(metadata, FORMAT, path)
        layers, tasks = metadata.pop("layers"), metadata.pop("tasks")
        for derived in ("format", "steps", "bins"):
            metadata.pop(derived)
        scores = cls(layers, tasks, metadata)
        scores.load_state(tensors, path)
        return scores

    def load_state(self, tensors: Mapping[str, Tensor], source: str | Path) -> None:
        """Take over the tensors of scores of the same layers and tasks, of any number of probes.

        Raises:
            ArtefactError: names or shapes do not fit.
        """
        steps = tensors.get("window_steps", torch.zeros(0))
        n_probes = max(1, len(steps) if steps.ndim else 0)
        for name, tensor in self.tensors.items():
            shape = tensor.shape if name == "counts" else (n_probes, *tensor.shape[1:])
            if name not in tensors or tensors[name].shape != shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ArtefactError(
                    f"{source} must hold '{name}' of shape {tuple(shape)}, found {found}. "
                    "Probe again."
                )
        self.tensors = {name: tensors[name].clone() for name in self.tensors}


def bins_below(threshold: float) -> int:
    """Number of bins that lie below the threshold.

    Raises:
        RecipeError: the threshold is out of range or no multiple of 0.01.
    """
    hundredths = round(threshold * 100) if math.isfinite(threshold) else 1
    if not (-100 < hundredths <= 0) or abs(threshold * 100 - hundredths) > 1e-6:
        raise RecipeError(
            f"The threshold S must lie in (-1, 0] and be a multiple of 0.01, got {threshold}. "
            "Recon uses values from -0.1 to 0."
        )
    return hundredths + 100
