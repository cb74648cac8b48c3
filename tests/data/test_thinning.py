"""Thinning by hand, and its laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from recon_search.data.thinning import thin
from tests.tasks.contract import LAW


def mask(*rows):
    return np.array([[cell == "#" for cell in row] for row in rows])


@pytest.mark.parametrize(
    "line",
    [mask("......", "######", "######", "......"), mask("......", "######", "######", "######")],
)
def test_a_wide_line_becomes_one_of_one_pixel(line):
    for wide in (line, line.T):
        found = thin(wide)
        along = found.any(0) if wide is line else found.any(1)
        across = found.sum(0) if wide is line else found.sum(1)
        assert across.max() == 1
        assert along[1:-1].all()


def test_a_line_of_one_pixel_stays():
    for line in (mask("####"), mask("#...", ".#..", "..#.", "...#"), mask("#")):
        assert np.array_equal(thin(line), line)


@LAW
@given(seed=st.integers(0, 10**6))
def test_it_keeps_what_hangs_together_and_thinning_again_changes_nothing(seed):
    generator = np.random.default_rng(seed)
    drawn = ndimage.zoom(generator.random((4, 5)), 3, order=1) > 0.5
    found = thin(drawn)
    assert not (found & ~drawn).any()
    assert np.array_equal(thin(found), found)
    touching = np.ones((3, 3))
    assert ndimage.label(found, touching)[1] == ndimage.label(drawn, touching)[1]
