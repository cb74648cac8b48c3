"""Samples cut into train, validation and test: by a ratio, stratified, or by whole groups.

A cut is a function of the samples' keys and the seed: the order in which samples are listed does
not count, and samples of the same key and seed stand where they stood.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction

from recon_search.data.source import PARTS, PartName
from recon_search.errors import DataError, nearest

SPELLINGS: Mapping[str, PartName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What the parts are called in tables and folders, in any case of letters."""

RATIO = (0.7, 0.15, 0.15)
"""Shares of train, validation and test where a recipe says nothing."""

_FEW_GROUPS = 8
"""Groups that can be dealt out in every way: 6,561."""

_ROUNDS = 50
"""Improvements of a cut by more groups, at most."""

Numbers = list[int]
"""Parts by their place in the order given, or how many samples each has."""


def read_part(text: str) -> PartName:
    """Return the part that a text names.

    Raises:
        DataError: it names none.
    """
    found = SPELLINGS.get(text.strip().lower())
    if found is None:
        raise DataError(
            f"must be one of {', '.join(SPELLINGS)}, found {text!r}."
            f"{nearest(text.strip().lower(), SPELLINGS)}"
        )
    return found


def cut(
    keys: Sequence[str],
    ratio: Sequence[float],
    seed: int,
    *,
    strata: Sequence[Sequence[Hashable]] = (),
    groups: Sequence[Hashable] | None = None,
    parts: Sequence[PartName] = PARTS,
) -> list[PartName]:
    """Cut samples into parts.

    Args:
        keys: of the samples, each once; they alone and the seed say how samples are shuffled.
        ratio: shares of the parts, all above 0; of their sum.
        seed: another seed, another cut.
        strata: by task, the class of each sample. Of the samples that are alike in all of them,
            each part has its share, within one sample. The parts' sizes are exact.
        groups: of each sample. No group stands in two parts, the sizes come as near to the ratio as
            the groups allow, and strata do not count.
        parts: in the order of the ratio.

    Returns:
        The part of every sample.
    """
    shares = _shares(ratio)
    order = sorted(range(len(keys)), key=lambda row: _draw(seed, keys[row]))
    if groups is not None:
        found = _cut_groups(order, shares, seed, groups)
    else:
        found = _cut_strata(order, shares, strata)
    return [parts[part] for part in found]


def complete(
    given: Sequence[PartName],
    keys: Sequence[str],
    ratio: Sequence[float] | None,
    seed: int,
    *,
    strata: Sequence[Sequence[Hashable]] = (),
    groups: Sequence[Hashable] | None = None,
) -> list[PartName]:
    """Cut what lacks a part off the training part.

    Args:
        given: the part of each sample, as data say it.
        keys: as of `cut`.
        ratio: None where the recipe says nothing; a test part is then not made up.
        seed: as of `cut`.
        strata: as of `cut`.
        groups: as of `cut`.

    Raises:
        DataError: there is no training part, or no test part and no ratio, or nothing to cut.
    """
    lacking = [part for part in PARTS if part not in given]
    if "train" in lacking:
        raise DataError("must have a train part, found none. Name one, or give `data.ratio` alone.")
    if "test" in lacking and ratio is None:
        raise DataError(
            "must have a test part, found none. Add one, or cut it off the training part with "
            "--set data.ratio=[0.7,0.15,0.15]."
        )
    if not lacking:
        if ratio is not None:
            raise DataError(
                "has train, validation and test parts, and `data.ratio` would cut nothing, got "
                f"{list(ratio)}. Remove it."
            )
        return list(given)
    shares = dict(zip(PARTS, ratio or RATIO, strict=True))
    rows = [row for row, part in enumerate(given) if part == "train"]
    names: list[PartName] = ["train", *lacking]
    found = cut(
        [keys[row] for row in rows],
        [shares[part] for part in names],
        seed,
        strata=[[column[row] for row in rows] for column in strata],
        groups=None if groups is None else [groups[row] for row in rows],
        parts=names,
    )
    completed = list(given)
    for row, part in zip(rows, found, strict=True):
        completed[row] = part
    return completed


def sizes(n: int, shares: Sequence[Fraction]) -> Numbers:
    """Divide n by shares in whole numbers: what is left goes to the largest rests."""
    exact = [n * share for share in shares]
    found = [math.floor(size) for size in exact]
    rests = sorted(range(len(found)), key=lambda part: found[part] - exact[part])
    for part in rests[: n - sum(found)]:
        found[part] += 1
    return found


def _shares(ratio: Sequence[float]) -> list[Fraction]:
    """The ratio in exact numbers, so that 0.15 of 20 is 3."""
    exact = [Fraction(str(share)) for share in ratio]
    return [share / sum(exact) for share in exact]


def _scale(shares: Sequence[Fraction]) -> int:
    """What makes shares whole numbers, which are faster."""
    return math.lcm(*(share.denominator for share in shares))


def _draw(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}\n{key}".encode(errors="surrogatepass"), digest_size=16).digest()


def _cut_strata(
    order: Sequence[int], shares: Sequence[Fraction], strata: Sequence[Sequence[Hashable]]
) -> Numbers:
    """Cut samples so that parts have their sizes, and of every stratum its share within one.

    Every stratum gives its whole shares. What is left of it, fewer samples than there are parts,
    goes to different parts: to those that lack samples of these classes the most, among those that
    have room. A part that would have no room left unless it takes from every stratum must take.
    """
    alike: dict[tuple[Hashable, ...], list[int]] = defaultdict(list)
    for row in order:
        alike[tuple(column[row] for column in strata)].append(row)
    found: dict[int, int] = {}
    room = sizes(len(order), shares)
    scale = _scale(shares)
    scaled = [int(scale * share) for share in shares]
    lacking: defaultdict[tuple[int, Hashable], Numbers] = defaultdict(lambda: [0] * len(shares))
    rests = []
    for labels, rows in alike.items():
        whole = [math.floor(len(rows) * share) for share in shares]
        start = 0
        for part, number in enumerate(whole):
            found |= dict.fromkeys(rows[start : start + number], part)
            start += number
            room[part] -= number
        for label in enumerate(labels):
            lacking[label] = [
                lack + len(rows) * share - scale * number
                for lack, share, number in zip(lacking[label], scaled, whole, strict=True)
            ]
        if start < len(rows):
            rests.append((labels, rows[start:]))
    rests.sort(key=lambda rest: -len(rest[1]))  # the most particular first; then as shuffled
    for index, (labels, rows) in enumerate(rests):
        must = [part for part, left in enumerate(room) if left >= len(rests) - index]
        needs = [
            (sum(lacking[label][part] for label in enumerate(labels)), room[part])
            for part in range(len(room))
        ]
        others = [part for part, left in enumerate(room) if left > 0 and part not in must]
        others.sort(key=needs.__getitem__, reverse=True)
        for row, part in zip(rows, [*must, *others], strict=False):
            found[row] = part
            room[part] -= 1
            for label in enumerate(labels):
                lacking[label][part] -= scale
    return [found[row] for row in range(len(order))]


def _cut_groups(
    order: Sequence[int], shares: Sequence[Fraction], seed: int, groups: Sequence[Hashable]
) -> Numbers:
    """Deal out groups, the largest first, then move and swap them while sizes come nearer.

    A few groups are dealt out in every way.
    """
    scale = _scale(shares)
    count = {group: scale * size for group, size in Counter(groups).items()}
    wanted = [int(scale * len(order) * share) for share in shares]
    shuffled = sorted(count, key=lambda group: _draw(seed, f"group {group!r}"))
    if len(count) <= _FEW_GROUPS:
        ways = itertools.product(range(len(shares)), repeat=len(count))
        dealt = (dict(zip(shuffled, way, strict=True)) for way in ways)
        place = min(dealt, key=lambda place: _distance(_have(place, count, len(shares)), wanted))
    else:
        place = _deal(sorted(shuffled, key=lambda group: -count[group]), count, wanted)
    return [place[group] for group in groups]


def _deal(
    groups: Sequence[Hashable], count: Mapping[Hashable, int], wanted: Sequence[int]
) -> dict[Hashable, int]:
    have = [0] * len(wanted)
    place = {}
    for group in groups:
        part = max(range(len(wanted)), key=lambda part: wanted[part] - have[part])
        place[group] = part
        have[part] += count[group]
    for _ in range(_ROUNDS):
        step = _best_step(place, count, wanted)
        if not step:
            break
        place |= step
    return place


def _best_step(
    place: Mapping[Hashable, int], count: Mapping[Hashable, int], wanted: Sequence[int]
) -> dict[Hashable, int]:
    """Find the move of one group, or the exchange of two, that brings sizes nearest, if any does.

    Groups of one size in one part are alike, so one of each is tried.
    """
    have = _have(place, count, len(wanted))
    best, found = _distance(have, wanted), {}
    alike = {(part, count[group]): group for group, part in place.items()}
    steps = [(group, part, None) for group in alike.values() for part in range(len(wanted))]
    pairs = itertools.combinations(alike.values(), 2)
    for group, part, other in [*steps, *((one, place[two], two) for one, two in pairs)]:
        after = list(have)
        after[place[group]] -= count[group]
        after[part] += count[group]
        if other is not None:
            after[part] -= count[other]
            after[place[group]] += count[other]
        distance = _distance(after, wanted)
        if distance < best:
            best, found = distance, {group: part}
            if other is not None:
                found[other] = place[group]
    return found


def _have(place: Mapping[Hashable, int], count: Mapping[Hashable, int], n_parts: int) -> Numbers:
    have = [0] * n_parts
    for group, part in place.items():
        have[part] += count[group]
    return have


def _distance(have: Sequence[int], wanted: Sequence[int]) -> tuple[int, int]:
    """How far sizes are from what they should be; an empty part is worse than any size."""
    empty = sum(size == 0 for size in have)
    return empty, sum(abs(size - aim) for size, aim in zip(have, wanted, strict=True))
