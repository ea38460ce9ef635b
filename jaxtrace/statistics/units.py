"""Units of intervals: rows, or groups of rows, that are drawn or removed as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Units:
    """Groups of rows, drawn stratum by stratum.

    Attributes:
      group: [rows], number of each row's group.
      strata: numbers of the groups of each stratum.
      mixed: True if a group has rows of several strata, which are then one.
    """

    group: Int[np.ndarray, " rows"]
    strata: tuple[Int[np.ndarray, " groups"], ...]
    mixed: bool = False

    @classmethod
    def of(cls, rows: int, groups: ArrayLike | None = None, strata: ArrayLike | None = None) -> Units:
        """Return the units of some rows.

        Args:
          groups: [rows]; None makes each row a group.
          strata: [rows], stratum of each row; None makes a single one.
        """
        group = np.arange(rows) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        pairs = np.unique(np.stack([group, group * 0 if strata is None else np.asarray(strata)]).astype(int), axis=1)
        count = int(group.max()) + 1
        if pairs.shape[1] > count:
            return cls(group, (np.arange(count),), mixed=True)
        return cls(group, tuple(pairs[0][pairs[1] == stratum] for stratum in np.unique(pairs[1])))

    @property
    def n(self) -> int:
        """Number of groups."""
        return sum(map(len, self.strata))

    @property
    def fewest(self) -> int:
        """Number of groups of the smallest stratum."""
        return min(map(len, self.strata))

    def drawn(self, seed: int, resamples: int) -> Iterator[np.ndarray]:
        """Yield the row numbers of each resample: groups drawn with replacement, each with all its rows."""
        rng = np.random.default_rng(seed)
        sizes = np.bincount(self.group)
        order, starts = np.argsort(self.group, kind="stable"), np.cumsum(sizes) - sizes
        for _ in range(resamples):
            drawn = np.concatenate([stratum[rng.integers(len(stratum), size=len(stratum))] for stratum in self.strata])
            drawn_sizes = sizes[drawn]
            ends = np.cumsum(drawn_sizes)
            yield order[np.arange(ends[-1]) + np.repeat(starts[drawn] - (ends - drawn_sizes), drawn_sizes)]

    def left_out(self) -> Iterator[Iterator[np.ndarray]]:
        """Yield for each stratum the row numbers without each of its groups in turn."""
        for stratum in self.strata:
            yield (np.flatnonzero(self.group != number) for number in stratum)
