"""A recipe that runs in seconds, and the Python files beside recipes."""

import importlib.util
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"

TINY = """
seed = 0
[data]
name = "multi-digits"
train = 128
validation = 32
test = 32
canvas = 12
[backbone]
name = "resnet18"
args = { channels = [4, 4, 8, 8] }
features = 6
[head]
activation = "relu"
[train]
epochs = 2
batch_size = 32
lr = 0.05
measure_every = 2
[probe]
epochs = 1
every = 1
window = [0.0, 1.0]
[split]
rule = "count"
k = 3
[compare]
seeds = 2
methods = ["joint", "pcgrad"]
controls = ["norm-only", "random", "random-params", "first-k", "least", "wider"]
"""


def import_recipe(name):
    """Import a Python file that lies beside the recipes."""
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
