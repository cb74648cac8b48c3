"""What a comparison says in words: against joint training, against controls, and for what price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from recon_search.runs.comparison import Row
from recon_search.runs.paired import Difference

RELEVANT = 1.0
"""Points of delta_m: a split whose advantage is surely smaller is called no better."""

AGAINST = {
    "joint": "joint training",
    "control": "controls",
    "rule": "splits by rule",
    "borrowed": "splits from elsewhere",
    "during": "splitting while training",
}
"""What a sentence compares the split with, by role."""


def verdict(rows: Sequence[Row], relevant: float = RELEVANT) -> str:
    """Say in a few plain sentences whether the split was worth it.

    What cannot be told is kept apart from what is no better: of the former the interval leaves room
    for an advantage of `relevant` or more, of the latter it does not.

    Args:
        rows: of a comparison.
        relevant: the smallest advantage that would matter, in points of delta_m.
    """
    split = next(row for row in rows if row.role == "split")
    sentences = []
    for role, what in AGAINST.items():
        others = [row for row in rows if row.role == role]
        if others:
            said = "; ".join(_describe(row, relevant) for row in others)
            sentences.append(f'Against {what}, "{split.name}" {said}.')
    return " ".join([*sentences, *_describe_price(split, rows)])


def _describe(row: Row, relevant: float) -> str:
    """Say how the split does against one row."""
    found = row.minus_split
    assert found is not None
    mean, name = -found.mean, f'"{row.name}"'
    if row.outcome != "level":
        verb = "beats" if row.outcome == "beaten" else "loses to"
        return f"{verb} {name} by {abs(mean):.2f} points of delta_m ({_doubt(found)})"
    if found.interval is None:
        return f"cannot be told from {name} ({mean:+.2f}, no interval: train over more seeds)"
    if -found.interval[0] < relevant:
        return f"is no better than {name} ({mean:+.2f}, {_interval(found)})"
    return (
        f"cannot be told from {name} ({mean:+.2f}, {_doubt(found)}; detectable were "
        f"{found.detectable:.2f})"
    )


def _doubt(found: Difference) -> str:
    p = found.p_value if found.adjusted is None else found.adjusted
    return f"{_interval(found)}, p {p:.2g}"


def _interval(found: Difference) -> str:
    """The 95 % interval of the split's advantage."""
    assert found.interval is not None
    return f"95 % interval {-found.interval[1]:+.2f} to {-found.interval[0]:+.2f}"


def _describe_price(split: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Say what the split costs, and whether it stands above the line to separate networks."""
    prices, apart = split.prices, next((row for row in rows if row.role == "separate"), None)
    if not prices:
        return
    cost = " and ".join(f"{price.ratio:.2f}x the {name}" for name, price in prices.items())
    sentence = f"It costs {cost} of joint training"
    above = {name: price.above for name, price in prices.items() if price.above is not None}
    if apart is None or not above:
        yield f"{sentence}."
        return
    other = " and ".join(f"{apart.prices[name].ratio:.2f}x" for name in prices)
    heights = " and ".join(f"{_height(each)} in {name}" for name, each in above.items())
    yield (
        f"{sentence}, separate networks {other}; from the straight line between the two it stands "
        f"{heights}: {_worth(above)}."
    )


def _height(above: Difference) -> str:
    if above.interval is None:
        return f"{above.mean:+.2f} points"
    return f"{above.mean:+.2f} ({above.interval[0]:+.2f} to {above.interval[1]:+.2f})"


def _worth(above: Mapping[str, Difference]) -> str:
    """Say of which cost a split makes more than a mixture of joint and separate networks would."""
    signs = {name: _sign(each) for name, each in above.items()}
    saved = [name for name, sign in signs.items() if sign > 0]
    wasted = [name for name, sign in signs.items() if sign < 0]
    if not saved and not wasted:
        return "whether it is worth that cannot be told"
    if not saved and len(wasted) == len(signs):
        return "separate networks are the better buy"
    said = [f"worth its {' and '.join(saved)}"] if saved else []
    return ", ".join([*said, *([f"not worth its {' and '.join(wasted)}"] if wasted else [])])


def _sign(each: Difference) -> int:
    """On which side of 0 the whole interval lies; 0 where it holds it, or there is none."""
    if each.interval is None:
        return 0
    return int(each.interval[0] > 0) - int(each.interval[1] < 0)
