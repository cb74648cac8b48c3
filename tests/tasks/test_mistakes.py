"""What tasks get wrong: known answers, and that batches do not matter."""

import math

import pytest
import torch

from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import IGNORED, Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.labels import Labels
from recon_search.tasks.mistakes import N_BINS, mistakes_of
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from recon_search.tasks.values import Values

GENERATOR = torch.Generator().manual_seed(0)


def draw(*size):
    return torch.randn(*size, generator=GENERATOR)


CASES = {
    "classes": (Classes("t", 3), draw(8, 3), torch.tensor([0, 1, 2, 0, IGNORED, 1, 2, 2])),
    "binary": (Binary("t"), draw(8, 1), torch.tensor([0, 1, 1, 0, IGNORED, 1, 0, 0])),
    "labels": (Labels("t", 2), draw(8, 2), torch.tensor([[0, 1], [IGNORED, 0]] * 4)),
    "values": (
        Values("t", 2, mean=(1.0, 2.0), std=(2.0, 3.0)),
        draw(8, 2),
        torch.tensor([[0.0, math.nan], [1.0, 2.0]] * 4, dtype=torch.float64),
    ),
    "segments": (Segments("t", 3), draw(8, 3, 2, 2), torch.tensor([[[0, 1], [2, IGNORED]]] * 8)),
    "depth": (Depth("t"), draw(8, 1, 2, 2), torch.tensor([[[1.0, 2.0], [0.0, math.nan]]] * 8)),
    "normals": (Normals("t"), draw(8, 3, 2, 2), draw(8, 3, 2, 2) * torch.tensor([0.0, 1.0])),
    "edges": (Edges("t"), draw(8, 1, 2, 2), torch.tensor([[[0, 1], [1, IGNORED]]] * 8)),
}
KNOWN = {
    "classes": 7, "binary": 7, "labels": 12, "values": 12, "segments": 24, "depth": 16,
    "normals": 16, "edges": 24,
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_every_label_counts_once_however_samples_are_batched(kind):
    task, output, target = CASES[kind]
    whole, cut = mistakes_of(task), mistakes_of(task)
    errors = whole.update(output, target)
    parts = [cut.update(output[a:b], target[a:b]) for a, b in ((0, 3), (3, 8))]
    assert torch.equal(whole.counts, cut.counts)
    assert int(whole.counts.sum()) == KNOWN[kind]
    assert torch.equal(errors.nan_to_num(-1), torch.cat(parts).nan_to_num(-1))


def test_confusion_has_labels_as_rows():
    found = mistakes_of(Classes("t", 2))
    errors = found.update(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert found.counts.tolist() == [[1, 1], [0, 0]]
    assert errors.tolist() == [1.0, 0.0]


def test_labels_are_right_and_wrong_yes_wrong_and_right_no():
    found = mistakes_of(Labels("t", 2))
    output = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    errors = found.update(output, torch.tensor([[1, 0], [1, 0]]))
    assert found.counts.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    assert errors.tolist() == [0.5, 0.5]


def test_errors_are_in_the_users_unit_and_the_ends_hold_what_lies_beyond():
    found = mistakes_of(Values("t", 1, mean=(10.0,), std=(2.0,), unit="years"))
    assert found.edges[0] == -6
    assert found.edges[-1] == 6
    assert found.what == "prediction minus label [years]"
    found.update(torch.tensor([[0.0], [100.0]]), torch.tensor([[9.9], [10.0]]).double())
    assert found.counts[N_BINS // 2] == 1
    assert found.counts[-1] == 1


def test_angles_are_those_between_directions():
    found = mistakes_of(Normals("t"))
    output, target = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    output[0, 0], target[0, 0, 0, 0], target[0, 1, 0, 1] = 5.0, 1.0, 1.0
    errors = found.update(output, target)
    assert errors.item() == pytest.approx(45)
    assert (int(found.counts[0]), int(found.counts[-1])) == (1, 1)


def test_a_kind_of_ones_own_and_very_many_classes_have_none():
    class Own:
        name = "own"

    assert mistakes_of(Own()) is None
    assert mistakes_of(Classes("t", 1001)) is None
