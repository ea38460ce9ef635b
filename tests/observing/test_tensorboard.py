"""TensorBoard events of a run, read back from its event files."""

import importlib.util
import struct
from collections import defaultdict
from io import BytesIO

import jax
import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from jaxtrace import ConfigError
from jaxtrace.figures.theme import LIGHT
from jaxtrace.observing import tensorboard
from jaxtrace.observing.tensorboard import Board, head_map
from jaxtrace.schema import in_tensorboard
from tests.traces.rows import make_row

LAYERS = (2, 4, 6)


def values(directory):
    """Return tag → [(step, value)] of all event files in a directory."""
    by_tag = defaultdict(list)
    for path in sorted(directory.glob("events.*")):
        stream = BytesIO(path.read_bytes())
        while head := stream.read(12):  # the length of an event, and its checksum
            event = Event.FromString(stream.read(struct.unpack("<Q", head[:8])[0]))
            stream.read(4)
            for value in event.summary.value:
                by_tag[value.tag].append((event.step, value))
    return by_tag


@pytest.fixture
def rows():
    return [(i, make_row(i, steps)) for i, steps in enumerate([4, 1, 6, 3])]


def test_scalars_are_means_of_the_latest_rows(tmp_path, rows):
    with Board(tmp_path, LAYERS) as board:
        for part in (rows[:3], rows[3:]):
            board.on_progress(len(part), sum(row.length for _, row in part), 0.0)
            board.on_rows(part)
    events = values(tmp_path)
    for name in ("entropy", "varentropy"):
        expected = [np.nanmean(np.concatenate([row.metrics[name] for _, row in part])) for part in (rows[:3], rows[3:])]
        steps, means = zip(*((step, value.simple_value) for step, value in events[f"output/{name}"]), strict=True)
        assert steps == (11, 14)
        np.testing.assert_allclose(means, expected, rtol=1e-6)


def test_each_layer_has_a_histogram_of_its_finite_values(tmp_path, rows):
    with Board(tmp_path, LAYERS) as board:
        board.on_rows(rows)
    events = values(tmp_path)
    for name in ("attention_entropy", "lens_entropy"):
        for i, layer in enumerate(LAYERS):
            ((_, value),) = events[f"{name}/layer_{layer:02d}"]
            every = np.concatenate([row.metrics[name][:, i].ravel() for _, row in rows])
            assert value.histo.num == np.isfinite(every).sum()
            np.testing.assert_allclose(value.histo.sum, np.nansum(every, dtype=float), rtol=1e-5)


def test_maps_average_all_rows(tmp_path, rows, monkeypatch):
    drawn = defaultdict(list)

    def recording(values, layers, title, unit):
        drawn[title.split(",")[0]].append(values)
        assert layers == LAYERS
        return head_map(values, layers, title, unit)

    monkeypatch.setattr(tensorboard, "head_map", recording)
    with Board(tmp_path, LAYERS) as board:
        board.on_rows(rows[:1])  # drawn at once, which takes a large share of so short a run
        board.on_rows(rows[1:3])
        board.on_rows(rows[3:])  # drawn at the end of the run
    events = values(tmp_path)
    assert set(drawn) == {*in_tensorboard("map")}
    for name in drawn:
        every = np.concatenate([row.metrics[name] for _, row in rows])
        np.testing.assert_allclose(drawn[name][-1], np.nanmean(every, axis=0), rtol=1e-5)
        images = [Image.open(BytesIO(value.image.encoded_image_string)) for _, value in events[f"heads/{name}"]]
        assert len(images) == len(drawn[name]) == 2
        assert min(images[-1].size) > 200


def test_map_has_the_colours_of_its_values():
    values = np.array([[0.0, 1.0], [np.nan, 2.0]])
    image = head_map(values, (1, 2), "title", "nats")
    seen = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
    ends = colormaps[LIGHT.cmap]([0.0, 1.0], bytes=True)[:, :3]
    assert image.dtype == np.uint8 and {tuple(colour) for colour in ends.tolist()} <= seen


def test_metrics_that_were_not_traced_have_no_events(tmp_path):
    with Board(tmp_path, LAYERS) as board:
        board.on_rows([(0, make_row(0, 3, groups=("hidden",)))])
    assert not values(tmp_path)


def test_pace_and_memory_are_scalars(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "PACE_SECONDS", 0)
    with Board(tmp_path, LAYERS) as board:
        board.on_progress(0, 160, 0.0)
        board.on_progress(1, 160, 0.0)
    events = values(tmp_path)
    assert [step for step, _ in events["run/tokens_per_second"]] == [160, 320]
    assert all(value.simple_value > 0 for _, value in events["run/tokens_per_second"])
    assert 50 < events["memory/process"][0][1].simple_value < 1e6  # MiB
    devices = [device for device in jax.local_devices() if device.memory_stats()]
    assert sum(tag.startswith("memory/device") for tag in events) == len(devices)


def test_error_without_tensorboardx_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else find(name))
    with pytest.raises(ConfigError) as error:
        tensorboard.check_installed()
    assert str(error.value) == "tensorboard: needs tensorboardX; pip install 'jaxtrace[observe]'"
