"""What a grid of predictions says below a picture."""

import torch

from recon_search.tasks.binary import Binary
from recon_search.views.grid import lines_of


def test_the_share_is_of_what_is_said():
    task = Binary("dark", class_names=("no", "yes"))
    found = task.predict(torch.tensor([[-2.0], [2.0]]))
    columns = {"file": ["a", "b"], "dark": found[""], "dark probability": found["probability"]}
    assert [lines_of(columns, row, [task])[1] for row in (0, 1)] == [
        "dark: no (88%)",
        "dark: yes (88%)",
    ]
