"""A disk that fills up costs nothing that was stored, and the command goes on once there is room."""

import random
import subprocess

import pytest

from tests.reliability.commands import command_of, remove, temporary_files

TRIALS = {"trace": 10, "sweep": 10, "convert": 5, "lab train": 5, "tuned-lens": 5, "grade": 10}  # nightly


@pytest.fixture
def disk(tmp_path):
    """Mount a disk in memory, whose size the returned function sets."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no right to mount a disk in memory: {mount.stderr.strip()}")

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)
        return place

    yield resize
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(("verb", "trials"), TRIALS.items())
def test_a_full_disk_costs_nothing_that_was_stored(verb, trials, tmp_path, disk, request):
    chance, refused = random.Random(request.node.name), 0
    with command_of(verb, tmp_path) as command:
        command.undisturbed(tmp_path / "want")
        whole = sum(path.stat().st_size for path in (tmp_path / "want").rglob("*") if path.is_file())
        whole = whole or (tmp_path / "want").stat().st_size
        for _ in range(trials):
            place = disk(max(4096, int(chance.uniform(0, 1) * whole)))
            process = command.start(place / "got")
            process.join()
            assert temporary_files(place / "got") == []
            if process.exitcode:
                assert process.exitcode in ((1, 2) if verb == "sweep" else (2,))  # 1: its cells failed
                refused += 1
                disk(20 * whole + (1 << 20))
                process = command.start(place / "got")
                process.join()
            assert process.exitcode == 0
            command.same(place / "got", tmp_path / "want")
            remove(place / "got")
            assert not any(place.iterdir())
    print(f"{verb}: {trials} trials, {refused} stopped by a full disk; each went on to the undisturbed result")
