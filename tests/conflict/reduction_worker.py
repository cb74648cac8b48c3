"""What both processes do in test_reduction.py: a user's loop, each on batches of its own."""

import copy
import json
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist

from recon_search.conflict.rules import Reading, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ReconSearchError

LAYERS, TASKS = ["one", "two", "three"], ["a", "b", "c"]
STEPS = 24


def gramians_of(process):
    """What a process measures: c is absent in half of the first one's steps."""
    generator = torch.Generator().manual_seed(process)
    jacobians = torch.randn(STEPS, 3, 3, 4, generator=generator, dtype=torch.float64)
    if process == 0:
        jacobians[::2, :, 2] = 0
    return jacobians @ jacobians.mT


def measure(scores, process, steps=slice(None)):
    for index, gramians in list(enumerate(gramians_of(process)))[steps]:
        scores.update(gramians, at=index / STEPS)
    return scores


def warned(action, *arguments):
    """What an action warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action(*arguments)
    return [str(warning.message) for warning in caught]


def facts_of(scores):
    return {
        "digest": scores.digest,
        "rank": scores.rank(),
        "share": scores.share(),
        "steps": scores.steps,
        "pair steps": scores.pair_steps.tolist(),
    }


def run_cases(me, folder):
    found = {}
    own = measure(ConflictScores(LAYERS, TASKS), me)
    found["own digest"] = own.digest
    for name, action in {
        "rank": lambda scores: scores.rank(),
        "counts": lambda scores: scores.counts(),
        "share": lambda scores: scores.share(),
        "save": lambda scores: scores.save(folder / f"{me}.safetensors"),
        "rule": lambda scores: rank(scores, "mass", Reading()),
        "sum": lambda scores: (scores + scores).rank(),
    }.items():
        scores = copy.deepcopy(own)
        found[f"warned by {name}"] = warned(action, scores)
        found[f"warned after {name}"] = [] if name == "sum" else warned(scores.rank)
    own.reduce()
    found["reduced"] = facts_of(own)
    found["warned when reduced"] = warned(own.rank)
    own.reduce()
    found["reduced twice"] = facts_of(own)

    parts = ConflictScores(LAYERS, TASKS)
    for start in range(0, STEPS, 8):
        measure(parts, me, slice(start, start + 8))
        parts.reduce()
    found["reduced often"] = facts_of(parts)

    measure(parts, me, slice(0, 1))
    found["warned after one more step"] = warned(parts.rank)

    own.save(folder / f"reduced{me}.safetensors")
    dist.barrier()
    resumed = ConflictScores.load(folder / "reduced0.safetensors")
    found["warned when loaded"] = warned(resumed.rank)
    measure(resumed, me)
    resumed.reduce()
    found["resumed"] = facts_of(resumed)

    uneven = ConflictScores(LAYERS, TASKS)
    if me == 1:
        measure(uneven, me)
    uneven.reduce()
    found["one idle"] = facts_of(uneven)

    equal = measure(ConflictScores(LAYERS, TASKS, replicated=True), 1)
    found["warned when replicated"] = warned(equal.rank)
    before = equal.digest
    equal.reduce()
    found["replicated unchanged"] = equal.digest == before

    try:
        ConflictScores(LAYERS, [*TASKS, "d"] if me else TASKS).reduce()
    except ReconSearchError as error:
        found["refused"] = str(error)
    return found


def main(me, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=me,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    found = run_cases(me, folder)
    (folder / f"{me}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
