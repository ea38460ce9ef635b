"""Two equal commands at once: one refuses or waits its turn, and the result is that of one command alone."""

import random
from collections import Counter

import pytest

from tests.reliability.commands import command_of, remove

PAIRS = {"trace": 10, "sweep": 10, "convert": 5, "lab train": 5, "tuned-lens": 5, "grade": 5}  # nightly


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(("verb", "pairs"), PAIRS.items())
def test_two_writers_of_one_result_do_no_harm(verb, pairs, tmp_path, request):
    chance, ends = random.Random(request.node.name), Counter()
    with command_of(verb, tmp_path) as command:
        seconds = command.undisturbed(tmp_path / "want")
        for pair in range(pairs):
            got = tmp_path / f"got-{pair}"
            first = command.start(got)
            first.join(chance.uniform(0, seconds))
            second = command.start(got)
            for process in (first, second):
                process.join()
            codes = (first.exitcode, second.exitcode)
            assert set(codes) <= {0, 2} and 0 in codes
            ends[codes] += 1
            command.same(got, tmp_path / "want")
            remove(got)
    print(f"{verb}: {pairs} pairs of writers; exit statuses of the first and the second: {dict(ends)}")
