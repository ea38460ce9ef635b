"""Ways to compute experts against each expert's own product, and their storage."""

import functools
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxtrace
from jaxtrace import CheckpointError, ConfigError
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.models import expert_products
from jaxtrace.models.activations import gated
from jaxtrace.models.config import ClampedGate
from jaxtrace.models.decoder import abstract_params, active_parameter_count
from jaxtrace.models.expert_products import Chosen, ExpertForm, ExpertWeights
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.published import published_shape
from jaxtrace.models.stacked import LayerOfStack
from jaxtrace.parallel.mesh import divides
from tests.models.cases import SMALL

E, F, D = 5, 6, 8
NAMES = ("gate", "up", "down")
WAYS = {
    "chosen": expert_products.compute_experts,
    "dense": expert_products.dense,
    "ragged": expert_products.ragged,
    **{f"tiles of {size}": functools.partial(expert_products.tiled, size=size) for size in (1, 3, 16)},
}


def drawn(rng, rows, count):
    """Return rows, chosen experts (number E is computed elsewhere; expert 2 is never chosen) and weights."""
    x = np.float32(rng.normal(size=(rows, D)))
    numbers = [number for number in range(E + 1) if number != 2]
    expert = np.stack([rng.permutation(numbers)[:count] for _ in range(rows)])
    shapes = (E, F, D), (E, F, D), (E, D, F), (E, F), (E, F), (E, D)
    weights = ExpertWeights(*(np.float32(rng.normal(size=shape)) for shape in shapes))
    return x, Chosen(expert, np.float32(rng.random((rows, count)))), weights


def expected(x, chosen, weights, *, scores_on_inputs=False):
    """Compute one row and one expert at a time."""
    out = np.zeros_like(x)
    for row, (numbers, factors) in enumerate(zip(*chosen, strict=True)):
        for number, factor in zip(numbers, factors, strict=True):
            if number < E:
                gate, up, down, gate_bias, up_bias, down_bias = (weight[number] for weight in weights)
                read, factor = (factor * x[row], 1) if scores_on_inputs else (x[row], factor)
                hidden = gate @ read + gate_bias
                hidden = hidden / (1 + np.exp(-hidden)) * (up @ read + up_bias)
                out[row] += factor * (down @ hidden + down_bias)
    return out


@pytest.mark.parametrize("scores_on_inputs", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_computes_each_chosen_expert(way, scores_on_inputs, rng):
    x, chosen, weights = drawn(rng, 7, 3)
    x[4] = np.nan  # affects no other row
    computed = jax.jit(functools.partial(WAYS[way], form=ExpertForm("silu", scores_on_inputs)))(x, chosen, weights)
    want = expected(x, chosen, weights, scores_on_inputs=scores_on_inputs)
    np.testing.assert_allclose(computed, want, rtol=1e-4, atol=1e-5)


def test_a_clamped_gate_limits_both_of_its_inputs():
    gate, up = np.float32([[-9, -1, 1, 9], [3, -9, 9, 0.5]])
    low, mid = np.minimum(gate, 2), np.clip(up, -2, 2)
    got = gated(ClampedGate(limit=2.0, alpha=1.5), gate, up)
    np.testing.assert_allclose(got, (mid + 1) * low / (1 + np.exp(-1.5 * low)), rtol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_has_the_gradients_of_the_dense_one_also_in_a_stack_of_layers(way, dtype, rng):
    x, chosen, weights = jax.tree.map(jnp.asarray, drawn(rng, 4, 2))
    weights = jax.tree.map(lambda w: w.astype(dtype), weights)

    def in_stack(w):
        return LayerOfStack(jnp.stack([w + 1, w]), jnp.asarray(1))

    @functools.partial(jax.jit, static_argnames=("name", "stacked"))
    def gradients(name, weights, weight, stacked):
        def loss(w, y):
            layer = ExpertWeights(*map(in_stack, w)) if stacked else w
            return jnp.square(WAYS[name](x.astype(dtype), chosen._replace(weight=y), layer, ExpertForm("silu"))).sum()

        return jax.value_and_grad(loss, (0, 1))(weights, weight)

    want = gradients("dense", jax.tree.map(jnp.float32, weights), chosen.weight, False)
    tolerance = 1e-5 if dtype == jnp.float32 else 5e-2  # of the largest entry
    for stacked in (False, True):
        got = gradients(way, weights, chosen.weight, stacked)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(np.float32(a), b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(
    ("mean", "platform", "size"),
    [
        *((0.06, "cpu", 1), (1, "cpu", 4), (4, "cpu", 8), (16, "cpu", 32), (1000, "cpu", 32)),
        *((0.06, "tpu", 8), (4, "tpu", 8), (32, "tpu", 64), (1000, "tpu", 256)),
    ],
)
def test_the_tiles_grow_with_the_rows_of_an_expert(mean, platform, size):
    assert expert_products.tile_size(mean, platform) == size


CONFIG = SMALL["qwen3_moe"] | {"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_experts": 4}
LAYER = "model.layers.0.mlp"


@pytest.fixture
def stored(rng):
    """Return the tensors of a small checkpoint, with one tensor for each expert."""
    config = FAMILIES["qwen3_moe"].decoder_config(CONFIG, "test")
    random = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), abstract_params(config))
    return export_weights(config, random)


def loaded(directory, tensors):
    (directory / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return jaxtrace.load(str(directory))


def fused(tensors):
    """Return the tensors with one tensor for all experts, as transformers 5 has them in its modules."""
    each = {x: np.stack([tensors.pop(f"{LAYER}.experts.{i}.{x}_proj.weight") for i in range(4)]) for x in NAMES}
    gate_up = np.concatenate([each["gate"], each["up"]], axis=1)
    return tensors | {f"{LAYER}.experts.gate_up_proj": gate_up, f"{LAYER}.experts.down_proj": each["down"]}


def test_experts_are_read_from_one_tensor_each_and_from_one_for_all(stored, tmp_path):
    assert f"{LAYER}.experts.3.up_proj.weight" in stored
    for form in (stored, fused({**stored})):
        params = loaded(tmp_path, form).params["layers"][0]["feed_forward"]
        np.testing.assert_array_equal(params["router"], stored[f"{LAYER}.gate.weight"])
        for i, x in itertools.product(range(4), NAMES):
            np.testing.assert_array_equal(params["experts"][x][i], stored[f"{LAYER}.experts.{i}.{x}_proj.weight"])


def test_missing_and_doubled_experts_are_refused_in_one_line(stored, tmp_path):
    name = f"{LAYER}.experts.2.up_proj.weight"
    changes = {
        f"missing: {name}": {key: x for key, x in stored.items() if key != name},
        f"unknown: {LAYER}.experts.4.up_proj.weight": stored | {f"{LAYER}.experts.4.up_proj.weight": stored[name]},
        f"unknown: module.{name}": stored | {f"module.{name}": stored[name]},
        f"stored twice: {LAYER}.experts.down_proj, {LAYER}.experts.gate_up_proj": stored | fused({**stored}),
        f"{name} has shape [5, 32], not [16, 32]": stored | {name: stored[name][:5]},
    }
    for problem, tensors in changes.items():
        with pytest.raises(CheckpointError, match=re.escape(problem)) as error:
            loaded(tmp_path, tensors)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok=5, which is above num_experts=4"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok=0, which must be a positive whole number"),
        ({"num_experts": True}, "num_experts=True, which must be a positive whole number"),
        ({"mlp_only_layers": [-1]}, "must be a list of layer numbers"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step=0"),
        ({"scoring_func": "sigmoid"}, "scoring_func='sigmoid'"),
        ({"n_shared_experts": 1}, "n_shared_experts=1"),
        ({"routed_scaling_factor": 2.5}, "routed_scaling_factor=2.5"),
    ],
)
def test_an_unsupported_router_is_refused(changes, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)):
        FAMILIES["qwen3_moe"].decoder_config(CONFIG | changes, "test")


def test_a_mesh_that_does_not_divide_the_experts_is_refused():
    config = FAMILIES["qwen3_moe"].decoder_config(CONFIG | {"num_experts": 6}, "test")
    assert [parts for parts in (1, 2, 3, 4) if divides(parts, config)] == [1, 2]
    small = SMALL["qwen2_moe"] | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 6}
    config = FAMILIES["qwen2_moe"].decoder_config(small, "test")
    assert [parts for parts in (1, 2, 4) if divides(parts, config)] == [1, 2]


def test_a_token_uses_the_parameters_of_its_chosen_experts():
    active = {
        "qwen3-30b-a3b": 3_353_032_704,
        "mixtral-8x7b-v0.1": 12_879_925_248,
        "qwen1.5-moe-a2.7b": 2_689_173_504,
        "glm-4.5": 33_632_266_144,
        "llama-4-maverick-17b-128e": 17_184_691_200,
        "gemma-4-26b-a4b": 3_822_530_590,
        "gpt-oss-20b": 3_608_307_264 + 579_133_440,  # its model card excludes the embedding
        "gpt-oss-120b": 5_132_849_472 + 579_133_440,
    }
    assert {name: active_parameter_count(published_shape(name)) for name in active} == active
