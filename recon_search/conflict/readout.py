"""What is read off the sums of a probe: steps, counts, shares, totals, an order of the layers."""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor

from recon_search.conflict.sums import Sums, bins_below, up_to_most
from recon_search.errors import RecipeError


class Readout:
    """Sums of layers and tasks, and what they say.

    Attributes:
        layers: names of the L layers, in graph order.
        tasks: names of the T tasks.
        metadata: JSON values that travel with the sums.
        tensors: the sums, see `sums.empty_sums`.
    """

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    metadata: dict[str, Any]
    tensors: Sums

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The task pairs, in the order of the tensors' pair dimension."""
        return list(itertools.combinations(self.tasks, 2))

    @property
    def steps(self) -> int:
        """Number of measured steps: those in which two tasks or more had a loss."""
        return int(self.tensors["window_steps"].sum())

    @property
    def pair_steps(self) -> Tensor:
        """Number of steps in which each pair was measured, int64 (pairs,)."""
        return self.tensors["pair_steps"].sum((0, 1, 2))

    @property
    def unmeasured(self) -> list[tuple[str, str]]:
        """The pairs that never had a loss in the same step."""
        steps = self.pair_steps.tolist()
        return [pair for pair, n in zip(self.pairs, steps, strict=True) if not n]

    @property
    def n_probes(self) -> int:
        """Number of probes that were added up."""
        return len(self.tensors["window_steps"])

    def counts(self, threshold: float = 0.0) -> Tensor:
        """Count for each layer and pair the steps with cos < `threshold`, strictly.

        Args:
            threshold: S in (-1, 0], a multiple of 0.01.

        Returns:
            int64 counts of shape (L, pairs), out of `pair_steps`.

        Raises:
            RecipeError: the threshold is out of range or no multiple of 0.01, or no step was
                measured.
        """
        n_bins = bins_below(threshold)
        self._check_steps()
        return self.tensors["counts"][..., :n_bins].sum(-1)

    def shares(self, threshold: float = 0.0) -> Tensor:
        """Share of each pair's own steps with cos < `threshold`, by layer.

        Returns:
            float64 shares of shape (L, pairs), in [0, 1]; nan for pairs that never met.

        Raises:
            RecipeError: as `counts`.
        """
        return self.counts(threshold).double() / self.pair_steps

    def share(self, threshold: float = 0.0) -> float:
        """Share of a pair's steps that conflict, in [0, 1]: mean over layers and measured pairs.

        Raises:
            RecipeError: as `counts`.
        """
        total, steps = float(self.totals(threshold).sum()), self.pair_steps
        n_triples = float(steps.max()) * len(self.layers) * int((steps > 0).sum())
        return total / n_triples

    def totals(self, threshold: float = 0.0) -> Tensor:
        """S-conflict score of each layer (Recon, Definition 3): counts, added over the pairs.

        A pair that was measured less often than another counts as if it had met as often as the
        pair that met most, its share unchanged. One that never met adds nothing.

        Returns:
            float64 scores of shape (L,), whole numbers where all pairs met equally often.

        Raises:
            RecipeError: as `counts`.
        """
        counts, steps = self.counts(threshold).double(), self.pair_steps.double()
        return (counts * up_to_most(steps)).sum(-1)

    def blocks(self, name: str, threshold: float = 0.0) -> Tensor:
        """Read windowed sums.

        Args:
            name: `counts` (cos < threshold), `projection`, `mass`, `inner`, or `window_steps` and
                `pair_steps`.
            threshold: S, for `counts`.

        Returns:
            float64 sums of shape (probes, windows, halves, L, pairs), on the CPU. Steps have no L,
            those of windows no pairs; above `MANY_PAIRS` counts have one column for all pairs.
        """
        self._warn_of_own_steps()
        if name == "counts":
            counts = self.tensors["window_counts"][..., : bins_below(threshold)]
            return counts.sum(-1).double().cpu()
        return self.tensors[name].double().cpu()

    def rank(self, threshold: float = 0.0) -> list[str]:
        """Order the layers by `totals`, highest S-conflict score first, ties in graph order.

        Raises:
            RecipeError: as `counts`; or a pair was never measured, which is named.
        """
        totals = self.totals(threshold)
        self.check_pairs(self.pair_steps)
        order = totals.argsort(descending=True, stable=True)
        return [self.layers[index] for index in order.tolist()]

    def check_pairs(self, steps: Tensor, where: str = "") -> None:
        """Refuse scores in which a pair was never measured.

        Args:
            steps: of each pair, (pairs,).
            where: which part of the probe they are of, as " in the window [0.6, 1.0]".

        Raises:
            RecipeError: naming the first such pair.
        """
        missing = [p for p, n in zip(self.pairs, steps.tolist(), strict=True) if not n]
        if missing:
            raise RecipeError(
                f"Every pair of tasks must be measured{where}, '{missing[0][0]}' and "
                f"'{missing[0][1]}' never had a loss in the same step ({len(missing)} of "
                f"{len(self.pairs)} pairs). Measure more steps, or leave one of the two out."
            )

    def _check_steps(self) -> None:
        self._warn_of_own_steps()
        if not self.pairs or not self.steps:
            raise RecipeError(
                "Scores must hold measured steps, in which two tasks or more had a loss, these "
                f"hold none of tasks {', '.join(self.tasks)}. Call update in every measured step."
            )

    def _warn_of_own_steps(self) -> None:
        """Say so where other processes have sums of their own."""
