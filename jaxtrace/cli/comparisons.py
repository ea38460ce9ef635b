"""Options of the comparison of answers for `jaxtrace estimate`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from jaxtrace import interrupts
from jaxtrace.cli.chat_options import JUDGE, ChatOptions
from jaxtrace.cli.estimator_inputs import GROUP
from jaxtrace.files import check_writable

if TYPE_CHECKING:
    from jaxtrace.estimators.equivalence import Comparer

OF_JUDGE = "judge"


class ComparisonOptions(ChatOptions):
    """Comparison of the answers to a prompt."""

    equivalence: str = Field(
        "match",
        description="Test of equal meaning: match (same words), rouge-l (over 0.5), judge, or module:function.",
        json_schema_extra=GROUP,
    )
    similarity: str = Field(
        "rouge-l",
        description="Similarity of answers: rouge-l, match (0 or 1), judge (0 or 1), or module:function.",
        json_schema_extra=GROUP,
    )
    judge_model: str | None = Field(
        None, description="Model of that API that says whether two answers mean the same.", json_schema_extra=JUDGE
    )

    @property
    def asks_judge(self) -> bool:
        """Whether a judge compares answers."""
        return OF_JUDGE in (self.equivalence, self.similarity)

    @model_validator(mode="after")
    def _check_judge(self) -> Self:
        if not self.asks_judge == bool(self.judge_url) == bool(self.judge_model):
            raise ValueError(
                "--equivalence judge and --similarity judge need --judge-url and --judge-model, and these need one of "
                "them; give all, or none"
            )
        return self


class JudgedProgress:
    """Progress of estimators that also shows the number of a judge's replies."""

    def __init__(self, show: Callable[[int, int, str], None]) -> None:
        """Take the function that shows numbers done and in all, and further text."""
        self._show, self._latest, self._replies = show, (0, 1, ""), 0

    def on_count(self, done: int, total: int, name: str) -> None:
        """Show the number of estimators done, and the name of the next."""
        self._latest = done, total, name
        self._show(done, total, name)

    def on_answer(self, replies: int) -> None:
        """Show a judge's further replies."""
        interrupts.check()
        self._replies += replies
        done, total, name = self._latest
        self._show(done, total, f"{name}, {self._replies} replies")


@contextmanager
def open_comparers(
    options: ComparisonOptions, names: Collection[str], out: Path, on_answer: Callable[[int], None]
) -> Iterator[dict[str, Comparer]]:
    """Open those of the inputs "equivalence" and "similarity" that estimators have parameters for.

    Raises:
      JaxtraceError: a function cannot be imported, the URL is none, or the directory of replies is in use.
    """
    from jaxtrace.estimators.equivalence import COMPARISONS, Comparer, Comparison
    from jaxtrace.lock import WriteLock

    chosen = {name: getattr(options, name) for name in COMPARISONS if name in names}
    with ExitStack() as stack:
        judge: Comparison | None = None
        if OF_JUDGE in chosen.values():
            from jaxtrace.estimators.equivalence_judge import EquivalenceJudge

            if options.cache:
                check_writable(options.cache)
            else:
                stack.enter_context(WriteLock(options.replies(out)))
            chat = stack.enter_context(options.chat(options.judge_model or "", out))
            judge = EquivalenceJudge(chat, on_answer)
        comparers = {
            comparison: Comparer(judge if judge and comparison == OF_JUDGE else comparison)
            for comparison in chosen.values()
        }
        yield {name: comparers[comparison] for name, comparison in chosen.items()}
