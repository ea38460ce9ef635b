"""`jaxtrace trace --tensorboard` and `--profile`."""

import importlib.util

from tests.observing.test_tensorboard import values

DEMO = ("trace", "demo", "--limit", 2, "--max-new-tokens", 40, "--probes", "output,attention")


def test_tensorboard_and_profile_are_written(jaxtrace, no_plots, tmp_path):
    board, profile = tmp_path / "board", tmp_path / "profile"
    options = ("--out", tmp_path / "out", "--tensorboard", board, "--profile", profile)
    done = jaxtrace(*DEMO, *options)
    assert done.status == 0 and "--profile" not in done.out
    tags = values(board)
    assert {"output/entropy", "heads/sink_mass", "attention_entropy/layer_01"} <= {*tags}
    assert not any(tag.startswith("lens") for tag in tags)
    assert len([*profile.rglob("*.xplane.pb")]) == 1


def test_a_run_too_short_to_profile_says_so(jaxtrace, no_plots, tmp_path):
    options = ("--max-new-tokens", 4, "--out", tmp_path / "out", "--profile", tmp_path / "profile")
    done = jaxtrace(*DEMO, *options)
    assert done.status == 0
    assert "--profile: the run ended before there was a chunk of steps to profile" in " ".join(done.out.split())


def test_without_tensorboardx(jaxtrace, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = jaxtrace(*DEMO, "--out", tmp_path / "out", "--tensorboard", tmp_path / "board")
    assert (done.status, done.err) == (
        2,
        "jaxtrace: tensorboard: needs tensorboardX; pip install 'jaxtrace[observe]'\n",
    )
    assert not [*tmp_path.iterdir()]
