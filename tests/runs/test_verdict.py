"""What is said of a split: of joint training, of controls, and of its price."""

import pytest

from recon_search.runs.comparison import Price, Row
from recon_search.runs.paired import Difference
from recon_search.runs.verdict import verdict


def row(name, role, mean=None, low=None, high=None, p=None, prices=None):
    """A row whose delta_m minus the split's is `mean`."""
    found = None
    if mean is not None:
        interval = None if low is None else (low, high)
        found = Difference(mean, 1.0, interval, p, p, None if low is None else 2.5)
    delta_m = [0.0 if mean is None else mean]
    return Row(name, role, "joint", {}, delta_m, 1, 1, None, found, [], prices or {})


def test_what_is_beaten_lost_to_no_better_and_unclear_are_kept_apart():
    rows = [
        row("joint, unsplit", "joint", -5.0, -6.5, -3.5, 0.01),
        row("joint, split", "split"),
        row("first", "control", 2.0, 1.0, 3.0, 0.01),
        row("like", "control", -0.1, -0.5, 0.3, 0.5),
        row("random", "control", -2.0, -5.0, 1.0, 0.2),
        row("mass", "rule", -2.0),
    ]
    assert verdict(rows) == (
        'Against joint training, "joint, split" beats "joint, unsplit" by 5.00 points of delta_m '
        "(95 % interval +3.50 to +6.50, p 0.01). "
        'Against controls, "joint, split" loses to "first" by 2.00 points of delta_m (95 % '
        'interval -3.00 to -1.00, p 0.01); is no better than "like" (+0.10, 95 % interval -0.30 to '
        '+0.50); cannot be told from "random" (+2.00, 95 % interval -1.00 to +5.00, p 0.2; '
        "detectable were 2.50). "
        'Against splits by rule, "joint, split" cannot be told from "mass" (+2.00, no interval: '
        "train over more seeds)."
    )


def test_of_many_what_is_alike_is_said_at_once():
    def several(names, means, spread, p):
        for name, mean in zip(names, means, strict=True):
            yield row(name, "rule", -mean, -mean - spread, -mean + spread, p)

    rows = [
        row("s", "split"),
        *several("abc", (2, 3, 4), 1, 0.01),
        *several("def", (1, 2, 3), 9, 0.5),
        *several("ghi", (-0.5, -0.5, -0.5), 0.5, 0.2),
        *(row(name, "rule", 0.0) for name in "jkl"),
    ]
    assert verdict(rows) == (
        'Against splits by rule, "s" beats 3: "a" (+2.00), "b" (+3.00), "c" (+4.00); p at most '
        '0.01; is no better than 3: "g" (-0.50), "h" (-0.50), "i" (-0.50); cannot be told from 3: '
        '"d" (+1.00), "e" (+2.00), "f" (+3.00); detectable were 2.50 to 2.50; is the same as 3: '
        '"j", "k", "l".'
    )


def test_the_smallest_advantage_that_matters_decides_what_is_no_better():
    rows = [row("s", "split"), row("x", "control", -0.5, -1.5, 0.5, 0.3)]
    assert "cannot be told from" in verdict(rows, relevant=1.0)
    assert "is no better than" in verdict(rows, relevant=2.0)


def prices(flops, parameters):
    """Of a split at 2x and 1.01x, by heights (mean, low, high)."""
    ratios = zip(("FLOPs", "parameters"), (1.99, 1.01), (flops, parameters), strict=True)
    return {
        name: Price(ratio, above and Difference(above[0], 1.0, above[1:], 0.5, None, 1.0))
        for name, ratio, above in ratios
    }


ABOVE, BELOW, UNCLEAR = (1.5, 1.0, 2.0), (-0.6, -0.9, -0.3), (0.1, -0.5, 0.7)


@pytest.mark.parametrize(
    ("flops", "parameters", "end"),
    [
        (BELOW, ABOVE, "worth its parameters, not worth its FLOPs."),
        (ABOVE, ABOVE, "worth its FLOPs and parameters."),
        (UNCLEAR, ABOVE, "worth its parameters."),
        (BELOW, UNCLEAR, "not worth its FLOPs."),
        (BELOW, BELOW, "separate networks are the better buy."),
        (UNCLEAR, UNCLEAR, "whether it is worth that cannot be told."),
    ],
)
def test_a_price_is_held_against_separate_networks(flops, parameters, end):
    apart = {"FLOPs": Price(2.0), "parameters": Price(1.99)}
    rows = [
        row("s", "split", prices=prices(flops, parameters)),
        row("separate networks", "separate", 0.6, prices=apart),
    ]
    said = verdict(rows)
    assert said.startswith(
        "It costs 1.99x the FLOPs and 1.01x the parameters of joint training, separate networks "
        f"2.00x and 1.99x; from the straight line between the two it stands {flops[0]:+.2f} ("
    )
    assert said.endswith(end)


def test_without_separate_networks_the_cost_is_said_alone():
    rows = [row("s", "split", prices=prices(None, None))]
    assert verdict(rows) == "It costs 1.99x the FLOPs and 1.01x the parameters of joint training."
