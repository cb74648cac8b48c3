"""What a plan says: the trainings of a run, the steps that were timed, and what all takes."""

from __future__ import annotations

from dataclasses import dataclass

from recon_search.runs.timing import Span


@dataclass(frozen=True)
class Planned:
    """One way of training, over all seeds.

    Attributes:
        name: what the comparison calls it.
        role: `probe`, or as in `Line`.
        method: by which it is trained.
        trainings: of which so many are wanted.
        done: of which the run folder, or a line above, holds so many already.
        epochs: of each.
        parameters: of the network, heads included: the least and the most that a split may give.
        flops: of one image for all tasks, likewise.
        seconds: of one training.
    """

    name: str
    role: str
    method: str
    trainings: int
    done: int
    epochs: int
    parameters: tuple[int, int]
    flops: tuple[int, int]
    seconds: Span


@dataclass(frozen=True)
class StepCost:
    """What a step of a kind takes.

    Attributes:
        network: `one task`, `unsplit`, `split` (of copies that are not whole with their kind) or
            `wider`.
        method: that makes it.
        measured: whether conflicts are measured in it.
        tasks: measured in it, drawn at random; 0 for all, or for a step that measures nothing.
        sketch: numbers that a layer and task are kept in; 0 for whole gradients.
        seconds: that it takes.
        gradients: bytes of gradients kept at once, counted: a plain step keeps one set.
    """

    network: str
    method: str
    measured: bool
    tasks: int
    sketch: int
    seconds: Span
    gradients: int


@dataclass(frozen=True)
class Plan:
    """What a run will train and take.

    Attributes:
        lines: the probe, then the rows of the comparison.
        steps: what was timed.
        is_probed: whether the split is known, or stands for any of its size: one of the first
            layers, than which none is more work.
        device: on which it was timed.
        workers: trainings at once.
        seconds: of the run: least, likely and most.
        memory: bytes that one training takes at most, its process's own included on the CPU.
    """

    lines: list[Planned]
    steps: list[StepCost]
    is_probed: bool
    device: str
    workers: int
    seconds: Span
    memory: int

    @property
    def n_trainings(self) -> int:
        """Trainings that are left to do."""
        return sum(line.trainings - line.done for line in self.lines)
