"""Recipes of tasks of pixels that run in seconds, alone and beside a class."""

import numpy as np
from PIL import Image

from tests.data.files import write_csv, write_image

_REST = """
[backbone]
name = "resnet18"
args = { channels = [4, 4, 8, 8] }
[necks.shared]
kind = "fpn"
hidden = 8
args = { finest = 2 }
[train]
epochs = 1
batch_size = 8
lr = 0.01
measure_every = 2
[probe]
epochs = 1
every = 1
window = [0.0, 1.0]
[split]
rule = "count"
k = 3
[compare]
seeds = 1
methods = ["joint"]
controls = ["first-k"]
"""

SCENES = f"""
[data]
name = "scenes"
train = 16
validation = 8
test = 8
canvas = 32
[head]
kind = "mlp"
hidden = 8
neck = "shared"
{_REST}
"""

MIXED = f"""
[data]
name = "table"
root = "photos"
file = "labels.csv"
image = "file"
split = "part"
image_size = [24, 32]
[tasks.mask]
kind = "segments"
classes = ["ground", "road", "sky"]
head = {{ kind = "mlp", hidden = 8, neck = "shared" }}
[tasks.species]
kind = "classes"
{_REST}
"""


def write_mixed(root):
    """Write photographs of several sizes with masks and a class each."""
    (root / "masks").mkdir(parents=True)
    rows = []
    for index in range(32):
        size = (32 + index % 5, 24 + index % 3)
        write_image(root / f"{index}.png", index, size=size)
        mask = np.random.default_rng(index).integers(0, 3, size[::-1], dtype=np.uint8)
        Image.fromarray(mask).save(root / f"masks/{index}.png")
        part = ("train", "train", "validation", "test")[index % 4]
        row = {"file": f"{index}.png", "part": part, "mask": f"masks/{index}.png"}
        rows.append({**row, "species": ["oak", "fir"][index // 4 % 2]})
    write_csv(root / "labels.csv", rows)
