"""Model shapes as Hugging Face configs, and their random checkpoints, which jaxtrace and transformers load."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from benchmarks.timing import say
from jaxtrace.checkpoints.table import weight_table
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.published import find_published

COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
}

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": COMMON
    | {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 512,
        "max_position_embeddings": 1024,
        "rope_theta": 10000.0,
    },
    "15m": COMMON
    | {
        "hidden_size": 288,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 48,
        "vocab_size": 32000,
        "max_position_embeddings": 1024,
        "rope_theta": 10000.0,
    },
}

for name, published in (
    ("smollm2-135m", "smollm2-135m-instruct"),
    ("llama-3.2-1b", "llama-3.2-1b"),
    ("llama-3.2-3b", "llama-3.2-3b"),
    ("llama-3.1-8b", "llama-3.1-8b"),
):
    model = find_published(published)
    assert model is not None
    tied = model.raw.get("tie_word_embeddings", False)
    SHAPES[name] = COMMON | model.raw | {"head_dim": model.config.head_dim, "tie_word_embeddings": tied}

# A few layers of Qwen3-30B-A3B: 4.9 GB in float32, for speed; 4.3 GB in bfloat16, for conversion.
for name, layers, vocabulary in (("qwen3-moe-2-layers", 2, 8_192), ("qwen3-moe-3-layers", 3, 151_936)):
    model = find_published("qwen3-30b-a3b")
    assert model is not None
    SHAPES[name] = model.raw | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def checkpoint(shape: str, workdir: Path, seed: int = 0, dtype: Any = np.float32) -> Path:
    """Return the directory of a checkpoint with random weights; written once, one safetensors file per layer.

    Matrices are normal with variance 1 / inputs, the embedding has standard deviation 2 / √D. Logits then have a
    standard deviation of about 2, and no layer's output vanishes.
    """
    dtype = np.dtype(dtype)
    target = workdir / f"jaxtrace-benchmark-{shape}-seed{seed}{'' if dtype == np.float32 else f'-{dtype}'}"
    if target.exists():
        return target
    partial = target.with_name(f"{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    say(f"writing {target}")
    rng = np.random.default_rng(seed)
    groups = list(_tensors(decoder_config(shape)))
    file_of, total = {}, 0
    for i, group in enumerate(groups):
        file = f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        embed = SHAPES[shape]["hidden_size"]
        tensors = {name: _random(rng, size, name, embed).astype(dtype, copy=False) for name, size in group.items()}
        save_file(tensors, partial / file, metadata={"format": "pt"})
        file_of |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": file_of}
    (partial / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (partial / "config.json").write_text(json.dumps(SHAPES[shape] | {"dtype": str(dtype)}, indent=1))
    return partial.rename(target)


def decoder_config(shape: str) -> DecoderConfig:
    """Return the decoder's config of a shape."""
    return FAMILIES[SHAPES[shape]["model_type"]].decoder_config(SHAPES[shape], shape)


def parameter_bytes(shape: str, rows: int | None = None, dtype: str = "float32") -> int:
    """Return the bytes of all weights, or of those that a step of some rows reads.

    Of a layer's E experts, of which each row has C, a step reads E · (1 − (1 − C / E)^rows): the mean, if rows choose
    independently. Of an embedding that is not the unembedding too, it reads one line a row, which is not counted.
    """
    config, experts = decoder_config(shape), decoder_config(shape).experts
    share = 1.0 if rows is None or experts is None else 1 - (1 - experts.chosen / experts.number) ** rows
    params = abstract_params(config)
    if rows is not None and "unembedding" in params:
        params = {name: part for name, part in params.items() if name != "embedding"}
    sizes = jax.tree_util.tree_leaves_with_path(params)
    entries = sum(leaf.size * (share if "experts" in jax.tree_util.keystr(path) else 1) for path, leaf in sizes)
    return int(jnp.dtype(dtype).itemsize * entries)


def largest_parameter(shape: str) -> int:
    """Return the entries of the largest parameter; all experts of a layer are one."""
    return max(leaf.size for leaf in jax.tree.leaves(abstract_params(decoder_config(shape))))


def flops_per_text(shape: str, length: int, *, lens: bool) -> float:
    """Return the operations of the matrix products that score a text, with one lens per layer or none."""
    config = SHAPES[shape]
    layers, unembedding = config["num_hidden_layers"], config["vocab_size"] * config["hidden_size"]
    matrices = parameter_bytes(shape, rows=length) / 4 - unembedding
    attention = layers * config["num_attention_heads"] * config["head_dim"] * length  # half of it is masked
    return 2 * length * (matrices + attention + unembedding * (layers if lens else 1))


def random_tokens(shape: str, rows: int, length: int, seed: int = 1) -> list[list[int]]:
    """Return rows of random token ids, all of one length."""
    rng = np.random.default_rng(seed)
    return rng.integers(SHAPES[shape]["vocab_size"], size=(rows, length)).tolist()


def _tensors(config: DecoderConfig) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield the names and shapes of the weights, one group per file: those outside the layers, then each layer's."""
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, params in weight_table(config).items():
        layer = re.match(r"model\.layers\.\d+\.", name)
        groups.setdefault(layer[0] if layer else "", {})[name] = params[0].stored
    yield from groups.values()


def _random(rng: np.random.Generator, size: tuple[int, ...], name: str, embed: int) -> np.ndarray:
    if len(size) == 1:
        return np.ones(size, np.float32)
    std = 2 / embed**0.5 if "embed_tokens" in name else size[1] ** -0.5
    values = rng.standard_normal(size, np.float32)
    values *= std
    return values
