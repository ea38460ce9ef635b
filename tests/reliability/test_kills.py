"""Commands that are killed at random moments and run again have the result of an undisturbed run."""

import random
import signal

import pytest

from tests.reliability.commands import command_of, remove, temporary_files

KILLS = {"trace": 80, "sweep": 80, "convert": 60, "lab train": 40, "tuned-lens": 40, "grade": 60}  # nightly


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(("verb", "least"), KILLS.items())
def test_a_killed_command_ends_with_the_result_of_an_undisturbed_one(verb, least, tmp_path, request):
    chance = random.Random(request.node.name)
    with command_of(verb, tmp_path) as command:
        seconds = command.undisturbed(tmp_path / "want")
        kills = rounds = 0
        while kills < least:
            killed, got = True, tmp_path / f"got-{rounds}"
            while killed:
                process = command.start(got)
                if kills < least:
                    process.join(chance.uniform(0, seconds))
                    process.kill()
                process.join()
                killed = process.exitcode == -signal.SIGKILL
                kills += killed
                assert killed or process.exitcode in (0, 2)  # 2: the last kill came after the last file
            command.same(got, tmp_path / "want")
            assert temporary_files(got) == []
            remove(got)
            rounds += 1
    print(f"{verb}: {kills} kills in {rounds} results, each equal to the undisturbed one")
