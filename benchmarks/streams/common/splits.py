"""Order and split of images by nothing but their names, so that they are the same for every source.

Classes are in the order of their names, the images of one class in that of the SHA-256 of theirs,
which is as good as random and the same everywhere: the first n images of a class are no special
ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fractions import Fraction

ORDER = "by class, then by the SHA-256 of class/file"

Splits = dict[str, list[tuple[str, int]]]  # of each split, names and labels in their final order


def in_order(labels: dict[str, int]) -> list[tuple[str, int]]:
    """Names and labels, by label and then by the SHA-256 of the name."""
    return sorted(labels.items(), key=lambda item: (item[1], _rank(item[0])))


def split_by_rule(names: Iterable[str], test_fraction: float) -> tuple[list[str], Splits]:
    """Classes, and a split that depends on nothing but the names "class/file".

    In each class the images whose names have the smallest SHA-256 are for testing. How many that
    are, is the method of largest remainders: `test_fraction` of all images, rounded, is dealt out
    to the classes as near to `test_fraction` of each as whole images allow, of equal remainders
    the class first by name first. Every class keeps at least one image on either side.
    """
    by_class: dict[str, list[str]] = {}
    for name in sorted(names):
        by_class.setdefault(name.rpartition("/")[0], []).append(name)
    fraction = Fraction(str(test_fraction))
    shares = {c: len(members) * fraction for c, members in by_class.items()}
    n_test = {c: int(share) for c, share in shares.items()}
    left = round(sum(shares.values())) - sum(n_test.values())
    for c in sorted(shares, key=lambda c: (n_test[c] - shares[c], c))[:left]:
        n_test[c] += 1
    splits: Splits = {"train": [], "test": []}
    for label, (c, members) in enumerate(by_class.items()):
        n = min(max(n_test[c], 1), len(members) - 1)
        for i, name in enumerate(sorted(members, key=_rank)):
            splits["test" if i < n else "train"].append((name, label))
    return list(by_class), splits


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
