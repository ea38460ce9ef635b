"""The traced steps, compiled for absent TPUs: every kernel is used, on one device and on a mesh."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from jaxtrace.kernels import compiling_for

from jaxtrace import Probes
from jaxtrace.engine.step import decode_step, init_state, score_step
from jaxtrace.models.config import DecoderConfig, Experts, LayerKind
from jaxtrace.models.decoder import abstract_params
from jaxtrace.parallel.mesh import fit_mesh
from jaxtrace.parallel.sharding import param_shardings, state_shardings
from tests.kernels import tpu  # noqa: F401 — sets the environment that libtpu reads when it loads
from tests.parallel import collectives

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

ROWS, SLOTS, CHUNK = 4, 1024, 128
PLAIN = DecoderConfig("llama", 4096, 512, 2, 8, 4, 64, 1024, 4096, tied=True)
CAPPED = dataclasses.replace(
    PLAIN, pattern=(LayerKind(256), LayerKind()), score_soft_cap=50.0, logit_soft_cap=30.0, head_dim=128
)


# For the mesh: fewer key/value heads than devices along "model", and a vocabulary that these do not divide.
MESHED = dataclasses.replace(PLAIN, kv_heads=1, vocab_size=4099)
ROUTED = dataclasses.replace(MESHED, experts=Experts(8, 2, 256))
MESHED_CAPPED = dataclasses.replace(CAPPED, kv_heads=1, vocab_size=4099)


def compiled(config, shape, step, *arguments):
    devices = np.array(topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[: np.prod(shape)])
    mesh = fit_mesh(Mesh(devices.reshape(shape), ("data", "model"), axis_types=(AxisType.Auto,) * 2), config)

    def placed(shapes, shardings, dtype=None):
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=s), shapes, shardings)

    params = abstract_params(config, stacked=True)
    params = placed(params, param_shardings(config, mesh, stacked=True), jnp.bfloat16)
    with compiling_for("tpu"), jax.set_mesh(mesh):
        make = functools.partial(init_state, config, batch=ROWS, slots=SLOTS, probes=Probes.all())
        state = jax.eval_shape(make, params)
        state = placed(state, state_shardings(state, mesh))
        function = functools.partial(step, config=config, probes=Probes.all())
        return jax.jit(function, donate_argnames="state").lower(params, state, *arguments).compile().as_text()


def kernels_in(text):
    return set(
        re.findall(r"%([a-z_]+)(?:\.\d+)? = [^=]*custom-call\([^)]*\), custom_call_target=\"tpu_custom_call\"", text)
    )


ON_ONE_DEVICE = [pytest.param(PLAIN, marks=pytest.mark.nightly), CAPPED]
ON_A_MESH = [ROUTED, *(pytest.param(config, marks=pytest.mark.nightly) for config in (MESHED, MESHED_CAPPED))]


@pytest.mark.parametrize("config", ON_ONE_DEVICE, ids=["plain", "windows and caps"])
def test_decode_step_uses_its_kernels(config):
    kernels = {"decode_attention", "unembed_moments", "head_dispersion_decode"}
    assert kernels_in(compiled(config, (1, 1), decode_step)) == kernels


def copied_experts(text, config, parts):
    """Return the instructions of a program that produce the weights of all experts of a layer on a device."""
    experts = config.experts
    held, matrix = experts.number // parts, {experts.feed_forward, config.embed_dim}
    arrays = re.findall(r"%(\S+) = \w+\[(?:1,)?(\d+),(\d+),(\d+)\]\S* (?!parameter|get-tuple-element)\w", text)
    return [name for name, *sizes in arrays if int(sizes[0]) == held and {*map(int, sizes[1:])} == matrix]


@pytest.mark.parametrize("config", ON_A_MESH, ids=["experts", "plain", "windows and caps"])
def test_decode_step_on_a_mesh_uses_its_kernels(config):
    text = compiled(config, (2, 2), decode_step)
    assert kernels_in(text) == {"decode_attention", "unembed_moments"}
    collectives.check(text, config, ROWS, 1, SLOTS)
    if config.experts is not None:
        assert not copied_experts(text, config, 2)


TEXTS = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((ROWS, CHUNK), (ROWS,), (ROWS, CHUNK))]


def test_score_step_uses_its_kernels():
    kernels = {"prefill_attention", "unembed_moments", "head_dispersion"}
    assert kernels_in(compiled(CAPPED, (1, 1), score_step, *TEXTS)) == kernels


@pytest.mark.nightly
@pytest.mark.parametrize("config", [MESHED, ROUTED], ids=["plain", "experts"])
def test_score_step_on_a_mesh_uses_its_kernels(config):
    text = compiled(config, (2, 2), score_step, *TEXTS)
    assert kernels_in(text) == {"prefill_attention", "unembed_moments"}
    collectives.check(text, config, ROWS, CHUNK, SLOTS)
    if config.experts is not None:
        assert not copied_experts(text, config, 2)
