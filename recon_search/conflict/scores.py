"""Conflict scores: every threshold and every ranking rule from one probe, in constant memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_search.conflict.kept import check_addable, read_scores, write_scores
from recon_search.conflict.names import check_names, check_presence, check_shape
from recon_search.conflict.packing import pack, unpack
from recon_search.conflict.readout import Readout
from recon_search.conflict.reduction import add_up, n_processes
from recon_search.conflict.sum_laws import check_kinds, check_laws
from recon_search.conflict.sums import (
    add_step,
    digest_sums,
    empty_sums,
    fit_sums,
    join,
    narrow,
)
from recon_search.errors import RecipeError, TrainingError


class ConflictScores(Readout):
    """What a probe has measured, added up over its steps.

    Cosines between the tasks' gradients of a layer are kept as a histogram with bins of width
    0.01, so that the S-conflict score of Recon (arXiv 2302.11289, Definitions 2 and 3: how often
    cos < S, strictly) is exact for every S that is a multiple of 0.01. Scores of several probes
    (seeds, workers, runs that went on) add up by `+`, those of several processes by `reduce`.

    A pair of tasks is measured in the steps in which both have a loss, and every mean over steps is
    over a pair's own. A pair that never met is not measured: its share is nan, and what ranks or
    groups refuses it. A step with fewer than two tasks measures nothing and is not counted.

    A probe is cut into ten windows of equal length; rules that look at a part of it read the
    windowed sums. The steps of a pair alternate between two halves, and each probe has sums of its
    own, so that a ranking can be checked against itself. With cos, n and N the cosine, the layer's
    and the whole network's gradient norms of tasks i and j at one step, the sums over the steps of
    a window are

    - `projection`: relu(-cos) min(n_i, n_j) / sqrt(N_i N_j), what PCGrad takes from the smaller
      gradient;
    - `mass`: relu(-G_ij) / (N_i N_j);
    - `inner`: G_ij / (N_i N_j), signed.

    Counts of windows know each pair up to `MANY_PAIRS`; above, they are of all pairs together, and
    where absent tasks make the pairs' steps differ, a pair weighs there by its steps. The other
    sums are of each pair; above `MANY_PAIRS` they are rounded to `PRECISION` bits, which leaves
    what they add up to over the pairs as exact as float32 would.

    Inner products between consecutive batches are not kept: they need a second set of gradients a
    task, and gains made of them foretold the benefit of a split less well than these.

    Args:
        layers: names of the L layers, in graph order.
        tasks: names of the T tasks; pairs are (0, 1), (0, 2), ... in lexicographic order.
        metadata: JSON values that travel with the scores (backbone, layer types, seeds ...).
        replicated: all processes of a group update with equal Gramians, of gradients that were
            averaged over them, so that there is nothing to `reduce`.

    Raises:
        RecipeError: layers or tasks are not distinct names, one at least.

    Examples:
        Two steps of two layers and two tasks, whose gradients part in the second layer alone:

        >>> scores = ConflictScores(["stem", "block"], ["seg", "depth"])
        >>> together, apart = [[1.0, 0.9], [0.9, 1.0]], [[1.0, -0.6], [-0.6, 1.0]]
        >>> scores.update(torch.tensor([together, apart]))
        >>> scores.update(torch.tensor([together, together]))
        >>> scores.counts(threshold=-0.5)  # (L, pairs)
        tensor([[0],
                [1]])
        >>> scores.rank(threshold=-0.5)
        ['block', 'stem']
        >>> (scores + scores).steps
        4
    """

    def __init__(
        self,
        layers: Iterable[str],
        tasks: Iterable[str],
        metadata: Mapping[str, Any] | None = None,
        *,
        replicated: bool = False,
    ) -> None:
        self.layers = check_names("layers", layers)
        self.tasks = check_names("tasks", tasks)
        self.metadata = dict(metadata or {})
        self.replicated = replicated
        self._is_own = False  # holds steps that other processes do not know
        self._start: dict[str, Tensor] | None = None  # what it held before those
        self._has_warned = False
        self.tensors = empty_sums(len(self.layers), len(self.pairs))

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of layers, tasks and sums, whatever the metadata."""
        return digest_sums([self.layers, self.tasks], self.tensors)

    @torch.no_grad()
    def update(
        self,
        gramians: Tensor,
        *,
        at: float | None = None,
        present: Tensor | Iterable[str] | Mapping[str, Any] | None = None,
    ) -> None:
        """Add one step, to the last probe of those added up.

        Args:
            gramians: (L, T, T). A zero gradient has cosine 0 and conflicts with nobody.
            at: how much of the probe lies behind this step, in [0, 1]; chooses the window, the
                first without it.
            present: the tasks that had a loss: names, a mapping from names to losses or None, or
                bools of shape (T,). Without it a task is absent whose gradient is zero in every
                layer. A step in which fewer than two are present adds nothing.

        Raises:
            TrainingError: a Gramian is not finite; nothing is added.
            RecipeError: the Gramians' shape, `at` or `present` is wrong; nothing is added.
        """
        check_shape(gramians, len(self.layers), len(self.tasks))
        at = 0.0 if at is None else at
        if not 0 <= at <= 1:
            raise RecipeError(f"`at` must lie in [0, 1], got {at}. Pass step / number of steps.")
        gramians = gramians.double()
        device = gramians.device
        here = None if present is None else check_presence(self.tasks, present).to(device)  # (T,)
        if here is not None:
            gramians = gramians.where(here[:, None] & here, 0.0)
        finite = gramians.isfinite().flatten(1).all(1)  # (L,)
        if not bool(finite.all()):
            raise TrainingError(
                "Gradients must be finite to be measured, those of layer "
                f"'{self.layers[int((~finite).nonzero()[0])]}' are not, at measured step "
                f"{self.steps + 1}. Lower the learning rate, or clip gradients."
            )
        self._note_own_step()
        if self.tensors["counts"].device != device:
            self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        add_step(self.tensors, gramians, here, at)

    def reduce(self) -> None:
        """Add up what the processes of torch's default group have measured; all of them call this.

        For a data-parallel loop in which each process updates with the Gramians of its own batch:
        afterwards all hold the same scores, bit for bit, and rank alike. Each process's step counts
        as a measured step, of gradients over its share of the batch, in the same probe: processes
        share one training, and say nothing of how far seeds differ. What was already reduced, or
        loaded by all, counts once, however often this is called. Without a group it does nothing.

        Gramians do not add up to the Gramian of the mean gradient. To measure that, as this tool's
        own training does, average the gradients first and reduce nothing:

            gradients = task_gradients(losses, [parameters] * T, retain_graph=True)
            # dist.all_reduce(gradient, ReduceOp.AVG) of every gradient, in the same order
            scores.update(layer_gramians(gradients, layers))  # ConflictScores(..., replicated=True)

        Raises:
            ProcessError: the processes measure different layers, tasks or numbers of probes.
            ArtefactError: a count is too large.
        """
        if self.replicated or n_processes() == 1:
            return
        kind = [list(self.layers), list(self.tasks)]
        start = self.tensors if self._start is None else self._start
        total = add_up(kind, digest_sums(kind, start), start, self.tensors)
        self.tensors = {name: narrow(name, tensor) for name, tensor in total.items()}
        self._is_own, self._start = False, None

    def __add__(self, other: ConflictScores) -> ConflictScores:
        check_addable(self, other)
        replicated = self.replicated and other.replicated
        total = ConflictScores(self.layers, self.tasks, self.metadata, replicated=replicated)
        seeds = [*self.metadata.get("seeds", []), *other.metadata.get("seeds", [])]
        if seeds:
            total.metadata["seeds"] = seeds
        total.tensors = join(self.tensors, other.tensors)
        total._is_own = self._is_own or other._is_own
        if total._is_own:
            total._start = join(self._start or self.tensors, other._start or other.tensors)
        return total

    def save(self, path: str | Path) -> None:
        """Write `scores.safetensors` atomically; equal scores give equal bytes."""
        self._warn_of_own_steps()
        own = {"layers": self.layers, "tasks": self.tasks, "steps": self.steps}
        write_scores(path, self.tensors, {**self.metadata, **own})

    @classmethod
    def load(cls, path: str | Path) -> ConflictScores:
        """Read what `save` wrote, or what the format before it did.

        Raises:
            ArtefactError: the file is missing, damaged, or of another format.
        """
        tensors, layers, tasks, metadata = read_scores(path)
        scores = cls(layers, tasks, metadata)
        scores.load_state(tensors, path)
        return scores

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, for `load_state`: the sums, packed."""
        return pack(self.tensors)

    def load_state(self, tensors: Mapping[str, Tensor], source: str | Path) -> None:
        """Take over the tensors of scores of the same layers and tasks, of any number of probes.

        Args:
            tensors: packed or not.
            source: names the file in the error.

        Raises:
            ArtefactError: bytes, names, types or shapes do not fit, or no probe can have given the
                sums.
        """
        tensors = unpack(tensors, self.tensors, source)
        found = fit_sums(tensors, self.tensors, source)
        check_kinds({**found, **tensors}, self.tensors, source)
        check_laws(found, source)
        self.tensors = found
        self._is_own, self._start = False, None

    def _note_own_step(self) -> None:
        """Remember what other processes know, before the first step that they do not."""
        if not (self._is_own or self.replicated) and n_processes() > 1:
            self._start = {name: tensor.clone() for name, tensor in self.tensors.items()}
            self._is_own = True

    def _warn_of_own_steps(self) -> None:
        if self._is_own and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"These scores are of one of {n_processes()} processes alone, each may rank layers "
                "in another order. Call scores.reduce() in every process first.",
                stacklevel=3,
            )
