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

FEW = 2
"""Rows of which the same is said are described one by one up to here."""

BEATS, LOSES, NO_BETTER = "beats", "loses to", "is no better than"
UNCLEAR, SAME = "cannot be told from", "is the same as"
VERBS = BEATS, LOSES, NO_BETTER, UNCLEAR, SAME
"""In the order in which they are said."""


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
            said = "; ".join(_describe_all(others, split, relevant))
            sentences.append(f'Against {what}, "{split.name}" {said}.')
    return " ".join([*sentences, *_describe_price(split, rows)])


def _describe_all(others: Sequence[Row], split: Row, relevant: float) -> Iterator[str]:
    """Say how the split does against the rows of a role, those of which the same is said at once.

    Up to `FEW` are said one by one.
    """
    alike: dict[str, list[Row]] = {verb: [] for verb in VERBS}
    for row in others:
        alike[_verb(row, split, relevant)].append(row)
    for verb, rows in alike.items():
        if len(rows) <= FEW:
            yield from (f'{verb} "{row.name}"{_detail(row, verb)}' for row in rows)
            continue
        names = ", ".join(
            f'"{row.name}"' if verb == SAME else f'"{row.name}" ({-_found(row).mean:+.2f})'
            for row in rows
        )
        yield f"{verb} {len(rows)}: {names}{_range(rows, verb)}"


def _verb(row: Row, split: Row, relevant: float) -> str:
    found = _found(row)
    if row.outcome != "level":
        return BEATS if row.outcome == "beaten" else LOSES
    if row.repeats(split):
        return SAME
    is_small = found.interval is not None and -found.interval[0] < relevant
    return NO_BETTER if is_small else UNCLEAR


def _detail(row: Row, verb: str) -> str:
    """Return what follows the name of a row that is described alone."""
    found = _found(row)
    if verb == SAME:
        return ""
    if found.interval is None:
        return f" ({-found.mean:+.2f}, no interval: train over more seeds)"
    if verb in (BEATS, LOSES):
        return f" by {abs(found.mean):.2f} points of delta_m ({_doubt(found)})"
    if verb == NO_BETTER:
        return f" ({-found.mean:+.2f}, {_interval(found)})"
    return f" ({-found.mean:+.2f}, {_doubt(found)}; detectable were {found.detectable:.2f})"


def _range(rows: Sequence[Row], verb: str) -> str:
    """Return what follows the names of rows that are described together."""
    if verb in (BEATS, LOSES):
        return f"; p at most {max(_found(row).decisive_p or 0.0 for row in rows):.2g}"
    known = [_found(row).detectable for row in rows]
    told = sorted(each for each in known if each is not None)
    if verb != UNCLEAR or not told:
        return ""
    return f"; detectable were {told[0]:.2f} to {told[-1]:.2f}"


def _found(row: Row) -> Difference:
    assert row.minus_split is not None
    return row.minus_split


def _doubt(found: Difference) -> str:
    return f"{_interval(found)}, p {found.decisive_p:.2g}"


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
