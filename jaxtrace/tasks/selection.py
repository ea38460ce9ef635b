"""Random choices of prompts, plain or stratified by a key of their metadata."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from jaxtrace.errors import PromptError, few, shown
from jaxtrace.prompts import Prompt


def choose(prompts: Sequence[Prompt], sample: int | None, seed: int, stratify: str | None = None) -> list[Prompt]:
    """Return prompts drawn at random without replacement, in their own order and with their own ids.

    Args:
      prompts: prompts of a data set.
      sample: number of prompts; None keeps all.
      seed: seed of the choice; equal arguments give equal prompts.
      stratify: key of `meta`. Each of its values gets a share of the sample in proportion to its prompts, and at least
        one (Sainte-Laguë's rule); None ignores metadata.

    Raises:
      PromptError: there are fewer prompts than `sample`, a prompt lacks the key, or the key has more values than
        `sample`.
    """
    if sample is None:
        return list(prompts)
    check_sample(sample, len(prompts))
    rng = random.Random(seed)
    if stratify is None:
        return [prompts[i] for i in sorted(rng.sample(range(len(prompts)), sample))]
    strata: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        if stratify not in prompt.meta:
            known = few(sorted(prompt.meta), most=20) or "nothing"
            raise PromptError(
                f"stratify: prompt {shown(prompt.id)} has no {shown(stratify)!r}; choose from its metadata: {known}"
            )
        strata.setdefault(json.dumps(prompt.meta[stratify], sort_keys=True), []).append(i)
    if len(strata) > sample:
        raise PromptError(
            f"sample is {sample}, and {shown(stratify)!r} has {len(strata)} values; give at least {len(strata)}"
        )
    counts = _shares([len(members) for members in strata.values()], sample)
    drawn = [i for members, count in zip(strata.values(), counts, strict=True) for i in rng.sample(members, count)]
    return [prompts[i] for i in sorted(drawn)]


def check_sample(sample: int, size: int) -> None:
    """Raise PromptError for a sample of more prompts than there are."""
    if sample > size:
        raise PromptError(f"sample is {sample}, and there are {size:,} prompts; give at most {size}")


def _shares(sizes: Sequence[int], sample: int) -> list[int]:
    """Return the number of draws from each stratum: one each, then one by one where the share is most behind."""
    counts = [1] * len(sizes)
    for _ in range(sample - len(sizes)):
        behind = [size / (2 * count + 1) if count < size else 0 for size, count in zip(sizes, counts, strict=True)]
        counts[behind.index(max(behind))] += 1
    return counts
