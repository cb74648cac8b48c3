"""Small data of one's own: samples in memory, and image files."""

import torch
from PIL import Image

from recon_search.data.images import Images
from recon_search.data.task_data import TaskData
from recon_search.recipe import parse_recipe
from recon_search.tasks.classes import Classes

TASKS = (Classes("a", 3), Classes("b", 4))
SIZES = {"train": 45, "validation": 21, "test": 20}


class Listed:
    """Samples that are held in a list, whose targets can be read alone."""

    def __init__(self, samples):
        self.samples = list(samples)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def targets(self, index):
        return self.samples[index][1]


class Files:
    """Images that are opened when they are asked for; targets cannot be read alone."""

    def __init__(self, paths, targets):
        self.paths, self.all_targets = paths, targets

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return Image.open(self.paths[index]), self.all_targets[index]


def numbers(*shape, seed=0, most=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(most, shape, generator=generator, dtype=torch.uint8)


def of_tensors(shape=(3, 6, 8), sizes=SIZES, missing=0, dtype=torch.uint8, **options):
    """Tensors and two tasks; of b the first labels are missing."""
    parts = {}
    for seed, (part, n) in enumerate(sizes.items()):
        images = numbers(n, *shape, seed=seed).to(dtype)
        targets = numbers(n, 2, seed=seed, most=3).tolist()
        parts[part] = Listed(
            (image, {"a": a} if row < missing else {"a": a, "b": b})
            for row, (image, (a, b)) in enumerate(zip(images, targets, strict=True))
        )
    return TaskData(TASKS, parts, **options)


def of_feed(feed):
    """What a feed that is held in tensors holds, as samples."""
    parts = {}
    for name, part in feed.parts.items():
        parts[name] = Listed(
            (image, {task: target[row] for task, target in part.targets.items()})
            for row, image in enumerate(part.inputs)
        )
    return TaskData(feed.schema.tasks, parts)


def write_images(folder, n, *, smallest=24, seed=0, suffix="jpg", mode="RGB"):
    """Write smooth pictures of different sizes; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for row in range(n):
        shape = (3, 4, len(mode)) if len(mode) > 1 else (3, 4)
        coarse = Image.fromarray(numbers(*shape, seed=seed + row).numpy(), mode)
        size = (smallest + 7 * (row % 3), smallest + 5 * (row % 4))
        path = folder / f"{row}.{suffix}"
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def of_files(folder, sizes=SIZES, **options):
    """Image files of different sizes, and two tasks."""
    parts, paths = {}, {}
    for seed, (part, n) in enumerate(sizes.items()):
        paths[part] = write_images(folder / part, n, seed=100 * seed)
        targets = numbers(n, 2, seed=seed, most=3).tolist()
        parts[part] = Files(paths[part], [{"a": a, "b": b} for a, b in targets])
    return TaskData(
        TASKS, parts, describe=lambda part, row: f"{paths[part][row]} (row {row})", **options
    )


def data_config(**settings):
    """The section [data] of a recipe, for data that is given."""
    raw = {
        "data": {"name": "given", **settings},
        "backbone": {"name": "resnet18"},
        "train": {"epochs": 1, "batch_size": 16, "lr": 0.1},
        "probe": {"epochs": 1},
    }
    return parse_recipe(raw).data


def open_feed(data, device="cpu", say=lambda text: None, pretraining=None, **settings):
    """A feed of data that is given."""
    return Images(data, data_config(**settings), pretraining).open(torch.device(device), say)
