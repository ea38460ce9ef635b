"""Profiles of runs, and the named scopes in them."""

import functools
import re

import jax
import pytest

from jaxtrace import DecoderConfig, Model, Probes, decode_step, init_params, init_state
from jaxtrace.observing.profile import CHUNKS, Profile

CONFIG = DecoderConfig("llama", 32, 16, 2, 4, 2, 4, 24, 128)
INSIDE = ("attention", "feed_forward")
AROUND = ("embed", "unembed", "attention_metrics", "hidden_metrics", "sample")


@pytest.mark.parametrize(("stacked", "layers"), [(False, ("layer_1", "layer_2")), (True, ("layer_1_of_1",))])
def test_every_part_of_a_step_has_a_named_scope(stacked, layers):
    params = init_params(CONFIG, jax.random.key(0), stacked=stacked)
    step = jax.jit(functools.partial(decode_step, config=CONFIG, probes=Probes.all()))
    text = step.lower(params, init_state(CONFIG, params, 2, 64, Probes.all())).as_text(debug_info=True)
    for name in (*AROUND, *(f"{layer}/{part}" for layer in layers for part in INSIDE)):
        assert re.search(f'["/]{name}/', text), name


def test_run_is_profiled_for_a_few_chunks_after_the_first(tmp_path):
    model = Model("tiny", CONFIG, init_params(CONFIG, jax.random.key(0)))
    chunks = []
    with Profile(tmp_path) as profile:

        def on_progress(*progress):
            profile.on_progress(*progress)
            chunks.append(profile.done)

        model.generate([[1, 2], [3]], max_new_tokens=16 * (CHUNKS + 2), stop_tokens=(), on_progress=on_progress)
    assert chunks == [False] * CHUNKS + [True, True]
    (file,) = tmp_path.rglob("*.xplane.pb")
    content = file.read_bytes()
    for name in ("embed", "layer_1/attention", "layer_2/feed_forward", "unembed"):
        assert f"/{name}/".encode() in content, name


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_short_run_is_profiled_to_its_end(tmp_path, chunks):
    with Profile(tmp_path) as profile:
        for _ in range(chunks):
            profile.on_progress(0, 16, 0.0)
    assert profile.done == (chunks > 1)
    assert len([*tmp_path.rglob("*.xplane.pb")]) == (chunks > 0)
