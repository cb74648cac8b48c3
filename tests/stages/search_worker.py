"""A search worker as a process of its own that notes every epoch it trains.

    python -m tests.stages.search_worker OUT URL NAME [--stop-in-first-trial]

Epochs are appended to OUT/epochs.txt as "NAME training epoch". Told so, the worker stands still
after the first epoch of its first trial, once it has written OUT/NAME.stopped, until there is an
OUT/NAME.go.
"""

import sys
import time
from pathlib import Path

import torch

from recon_search import owners
from recon_search.conflict.scores import ConflictScores
from recon_search.recipe import load_recipe
from recon_search.runs.run import Run
from recon_search.stages import search, study
from recon_search.training import loop


def main():
    out, url, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    owners.machine = lambda: name  # as if on a machine of its own: only heartbeats tell of it
    stop = "--stop-in-first-trial" in sys.argv
    torch.set_num_threads(1)
    save = loop.save

    def noting(path, *arguments):
        save(path, *arguments)
        epoch = arguments[-1].epoch
        with (out / "epochs.txt").open("a") as file:
            file.write(f"{name} {path.parent.name} {epoch}\n")
        is_trial = len(arguments[0].learner.tasks) > 1
        if stop and is_trial and not (out / f"{name}.stopped").exists():
            (out / f"{name}.stopped").write_text(path.parent.name)
            while not (out / f"{name}.go").exists():
                time.sleep(0.05)

    loop.save = noting
    recipe = load_recipe(out / "recipe.toml")
    scores = ConflictScores.load(out / "scores.safetensors")
    search.work(study.Job(Run(recipe, out), scores, url, "study"))


if __name__ == "__main__":
    main()
