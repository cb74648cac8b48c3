"""Images a second against timm's own loader, and the share of a step spent waiting for data.

    python -m tests.benchmarks.bench_loading [--images 512] [--workers 1] [--rounds 5]

Both loaders read the same JPEG files, which lie in the cache of the operating system, and do the
same to them: resize and crop for evaluation; random crop and flip for training. Rounds alternate,
each with processes of its own, which differ by several percent; the median of their ratios counts,
printed with its quartiles. Without workers it is CPU time that is measured, which other work on the
machine hardly changes; with workers it is what passes by the clock. Waiting is the time that a
training spends on getting its batches out of data that is kept in memory.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import timm.data
import torch
from PIL import Image
from torch.utils.data import Dataset

import recon_search as rs
from recon_search.data.images import Images
from recon_search.data.source import Step
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, DataConfig, HeadsConfig, TrainConfig
from recon_search.recipe.data import AugmentConfig
from recon_search.training.loop import fit

SIZE, BATCH = 160, 32
TRAINING = {"scale": (0.08, 1.0), "flip": 0.5}


class Files(Dataset):
    """Pictures and their classes."""

    def __init__(self, paths: list[Path], transform: Callable | None = None) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        image = Image.open(self.paths[index])
        if self.transform is None:
            return image, {"a": index % 2, "b": index % 3}
        return self.transform(image.convert("RGB")), index % 2  # timm sets it


def write_pictures(folder: Path, n: int) -> list[Path]:
    """Write photographs of 500 x 375, as large as ImageNet's are on average."""
    generator = np.random.default_rng(0)
    paths = []
    for row in range(n):
        coarse = Image.fromarray(generator.integers(256, size=(30, 40, 3), dtype=np.uint8))
        paths.append(folder / f"{row}.jpg")
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def make_source(paths: list[Path], workers: int, cache: str, augment: dict) -> Images:
    """The files as a source of this project."""
    tasks = [rs.Classes("a", 2), rs.Classes("b", 3)]
    data = rs.TaskData(tasks, dict.fromkeys(("train", "validation", "test"), Files(paths)))
    config = DataConfig(
        name="given",
        image_size=(SIZE, SIZE),
        interpolation="bilinear",
        workers=workers,
        cache=cache,
        augment=AugmentConfig(**augment),
    )
    return Images(data, config)


def timms(paths: list[Path], workers: int, *, is_training: bool) -> Iterator:
    """timm's own loader, with its prefetcher."""
    return timm.data.create_loader(
        Files(paths),
        (3, SIZE, SIZE),
        BATCH,
        is_training=is_training,
        interpolation="bilinear",
        crop_pct=1.0,
        color_jitter=0.0,
        scale=TRAINING["scale"],
        hflip=TRAINING["flip"],
        num_workers=workers,
        pin_memory=False,
        device=torch.device("cpu"),
        persistent_workers=workers > 0,
    )


def rate(n: int, steps: Callable[[], Iterator], clock: Callable[[], float]) -> float:
    """Images a second of a pass."""
    started = clock()
    for _ in steps():
        pass
    return n / (clock() - started)


def compare_loaders(paths: list[Path], workers: int, rounds: int, *, is_training: bool) -> None:
    """Print images a second of both."""
    source = make_source(paths, workers, "none", TRAINING if is_training else {})
    inputs = source.open(torch.device("cpu")).inputs
    clock = time.perf_counter if workers else time.process_time
    epochs = itertools.count()

    def both() -> tuple[float, float]:
        feed = source.open(torch.device("cpu"))
        loader = timms(paths, workers, is_training=is_training)

        def ours() -> Iterator:
            order = (0, next(epochs)) if is_training else None
            for (batch,) in feed.steps("train", BATCH, order):
                yield inputs.normalise(batch.inputs)

        passes = ours, lambda: iter(loader)
        for steps in passes:  # so that processes run
            rate(len(paths), steps, clock)
        one, two = (rate(len(paths), steps, clock) for steps in passes)
        feed.close()
        return one, two

    pairs = [both() for _ in range(rounds)]
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    low, ratio, high = statistics.quantiles([one / two for one, two in pairs], n=4)
    name = "training" if is_training else "evaluation"
    print(
        f"{name}, {workers} workers: {own:.0f} images/s, timm {other:.0f}, "
        f"ratio {ratio:.2f} ({low:.2f} to {high:.2f})"
    )


def measure_waiting(paths: list[Path], rounds: int) -> None:
    """Print the share of an epoch that is spent on getting batches out of memory."""
    feed = make_source(paths, 0, "auto", {}).open(torch.device("cpu"))
    next(iter(feed.steps("train", BATCH)))  # reads the files
    config = TrainConfig(epochs=1, batch_size=BATCH, lr=0.01)
    backbone = BackboneConfig(name="resnet18", args={"channels": [8, 8, 16, 16]}, features=8)

    def share() -> float:
        model = build_model(
            backbone, HeadsConfig(), feed.schema.tasks, shape=feed.schema.shape, seed=0
        )
        source = Waiting(feed)
        started = time.perf_counter()
        fit(model, source, config, seed=0)
        return source.seconds / (time.perf_counter() - started)

    shares = [share() for _ in range(rounds)]
    print(f"waiting, kept in memory: {100 * statistics.median(shares):.2f} % of a training")


class Waiting:
    """A feed whose steps are timed."""

    def __init__(self, feed) -> None:
        self._feed, self.seconds = feed, 0.0

    def __getattr__(self, name: str):
        return getattr(self._feed, name)

    def select(self, tasks) -> Waiting:
        """The feed as all its tasks see it, which share every image: itself."""
        assert self._feed.select(tasks) is self._feed
        return self

    def steps(self, *args, **kwargs) -> Iterator[Step]:
        """Yield the feed's steps; what it takes to get them adds up."""
        steps = iter(self._feed.steps(*args, **kwargs))
        while True:
            started = time.perf_counter()
            step = next(steps, None)
            self.seconds += time.perf_counter() - started
            if step is None:
                return
            yield step


def main() -> None:
    """Write pictures and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder), options.images)
        for is_training in (False, True):
            compare_loaders(paths, options.workers, options.rounds, is_training=is_training)
        measure_waiting(paths, options.rounds)


if __name__ == "__main__":
    main()
