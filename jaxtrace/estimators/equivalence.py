"""Comparison of two answers: whether they mean the same, and how similar they are."""

from __future__ import annotations

import hashlib
import json
import math
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from jaxtyping import Float

from jaxtrace.errors import JaxtraceError, StudyError, first_line, shown
from jaxtrace.grading.words import normalize_text

# Whether two answers mean the same; or their similarity, from 0 to 1; or three probabilities: the first entails the
# second, neither follows, the first contradicts the second. None is undecided: scores of the prompt are NaN.
Verdict: TypeAlias = bool | float | Sequence[float] | None
LONGEST_PROMPT = 60  # characters of a prompt that an error shows


class AnswerPair(NamedTuple):
    """Two texts to compare, and the prompt that they answer."""

    prompt: str
    first: str
    second: str


@runtime_checkable
class BatchComparison(Protocol):
    """Comparison of many pairs in one call, such as batches of a model of entailment, or a judge."""

    def compare_all(self, pairs: Sequence[AnswerPair]) -> Sequence[Verdict]:
        """Return the verdict on each pair."""
        ...


Comparison: TypeAlias = Callable[[str, str], Verdict] | BatchComparison


def match(first: str, second: str) -> bool:
    """Return whether two answers differ only in case, accents, punctuation and articles."""
    return normalize_text(first) == normalize_text(second)


def rouge_l(first: str, second: str) -> float:
    """Return the F-measure of ROUGE-L (Lin 2004) of two texts: 2 LCS / (m + n) of their stemmed words, from 0 to 1.

    It is rouge-score's with `use_stemmer`, save that words of every script count, and two texts without words have 1.
    """
    from rapidfuzz.distance import Indel

    return Indel.normalized_similarity(_stems(first), _stems(second))


COMPARISONS = ("equivalence", "similarity")  # inputs of estimators
BUILT_IN: dict[str, Comparison] = {"match": match, "rouge-l": rouge_l}


class Comparer:
    """Comparison that asks its function once for each ordered pair of texts, whichever estimators need it.

    Attributes:
      calls: number of pairs that the function compared.
    """

    def __init__(self, comparison: str | Comparison) -> None:
        """Take a comparison.

        Args:
          comparison: "match", "rouge-l", "module:function", a function of two answers, or a `BatchComparison`.

        Raises:
          StudyError: the name is unknown, or cannot be imported.
        """
        self.calls = 0
        self._comparison = comparison_named(comparison) if isinstance(comparison, str) else comparison
        self._known: dict[bytes, tuple[float, float, float]] = {}

    def compare(self, pairs: Sequence[AnswerPair], estimator: str) -> Float[np.ndarray, "pairs 3"]:
        """Return probabilities that each pair's first text entails the second, neither follows, or it contradicts it.

        A truth value, or a similarity s, becomes (s, 0, 1 − s); an undecided pair is NaN.

        Args:
          estimator: name of the estimator, which errors show.

        Raises:
          StudyError: the function fails, or returns something else.
        """
        keys = [hashlib.blake2b(json.dumps(pair).encode(), digest_size=16).digest() for pair in pairs]
        unknown = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._known}
        self._known.update(zip(unknown, self._ask([*unknown.values()], estimator), strict=True))
        return np.array([self._known[key] for key in keys], float).reshape(-1, 3)

    def _ask(self, pairs: Sequence[AnswerPair], estimator: str) -> list[tuple[float, float, float]]:
        compare, results = self._comparison, []
        if isinstance(compare, BatchComparison) and pairs:
            with _named(estimator, pairs[0]):
                verdicts = list(compare.compare_all(pairs))
                if len(verdicts) != len(pairs):
                    raise ValueError(f"it returned {len(verdicts)} verdicts on {len(pairs)} pairs")
                results = [_probabilities(verdict) for verdict in verdicts]
        elif not isinstance(compare, BatchComparison):
            for pair in pairs:
                with _named(estimator, pair):
                    results.append(_probabilities(compare(pair.first, pair.second)))
        self.calls += len(pairs)
        return results


AnyComparison: TypeAlias = str | Comparison | Comparer


def comparer(comparison: AnyComparison) -> Comparer:
    """Return a comparison as a `Comparer`."""
    return comparison if isinstance(comparison, Comparer) else Comparer(comparison)


def share_comparers(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs of estimators in which equal comparisons are one `Comparer`, which all estimators share."""
    shared: dict[int, Comparer] = {}
    return dict(inputs) | {
        name: shared.setdefault(id(inputs[name]), comparer(inputs[name])) for name in COMPARISONS if name in inputs
    }


def comparison_named(name: str) -> Comparison:
    """Return a comparison by name: "match", "rouge-l", or "module:function" of the user.

    Raises:
      StudyError: the name is unknown, or cannot be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    known = f"give {', '.join(BUILT_IN)}, or module:function of two answers"
    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name):
        raise StudyError(f"{shown(name)}: is no comparison of answers; {known}")
    try:
        function = pkgutil.resolve_name(name)
    except Exception as error:  # the module is the user's
        raise StudyError(
            f"{name}: cannot be imported ({first_line(error)}); correct it, or set PYTHONPATH to its directory"
        ) from error
    if isinstance(function, BatchComparison) or callable(function):
        return cast(Comparison, function)
    raise StudyError(f"{name}: is not a function; {known}")


def compare_answers(
    prompts: Sequence[tuple[str, Sequence[str]]], comparer: Comparer, estimator: str
) -> list[Float[np.ndarray, "answers answers 3"]]:
    """Return `Comparer.compare` of all ordered pairs of the answers to each prompt, an answer with itself among them.

    Args:
      prompts: text of each prompt, and its answers.
    """
    pairs = [AnswerPair(prompt, a, b) for prompt, answers in prompts for a in answers for b in answers]
    values = comparer.compare(pairs, estimator)
    ends = np.cumsum([len(answers) ** 2 for _, answers in prompts])
    parts = np.split(values, ends[:-1])
    return [part.reshape(len(answers), -1, 3) for part, (_, answers) in zip(parts, prompts, strict=True)]


def are_equivalent(entailment: Float[np.ndarray, "*any answers answers 3"]) -> np.ndarray:
    """Return whether each of two answers entails the other [answers, answers]: entailment is its likeliest relation."""
    entails = entailment[..., 0] > entailment[..., 1:].max(-1)
    return entails & entails.swapaxes(-1, -2)


def _probabilities(verdict: Verdict) -> tuple[float, float, float]:
    if verdict is None:
        return (math.nan, math.nan, math.nan)
    values = np.asarray(verdict, float)
    if values.shape not in ((), (3,)) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"it returned {shown(repr(verdict), 60)}, which is neither a truth value, a similarity from 0 to 1, nor "
            "three probabilities"
        )
    if values.ndim:
        entails, neutral, contradicts = values.tolist()
        return entails, neutral, contradicts
    return float(values), 0.0, 1.0 - float(values)


@contextmanager
def _named(estimator: str, pair: AnswerPair) -> Iterator[None]:
    """Turn a failure of a user's comparison into one line that names the estimator and the prompt."""
    try:
        yield
    except JaxtraceError:
        raise
    except Exception as error:
        raise StudyError(
            f"{estimator}: the comparison of two answers to {shown(pair.prompt, LONGEST_PROMPT)!r} failed: "
            f"{first_line(error)}; correct the function"
        ) from error


def _stems(text: str) -> list[str]:
    return [_stem(word) for word in re.findall(r"[^\W_]+", text.lower())]


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return _stemmer().stem(word) if len(word) > 3 else word


@lru_cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer  # takes a second

    return PorterStemmer()
