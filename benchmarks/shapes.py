"""Model shapes as Hugging Face configs, and their random checkpoints, which jaxtrace and transformers load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.timing import say
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

for name in ("llama-3.2-1b", "llama-3.2-3b"):
    model = find_published(name)
    assert model is not None
    SHAPES[name] = COMMON | model.raw | {"head_dim": model.config.head_dim}


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
    groups = list(_tensors(SHAPES[shape]))
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


def parameter_bytes(shape: str) -> int:
    """Return the bytes of all weights in float32."""
    return sum(4 * int(np.prod(size)) for group in _tensors(SHAPES[shape]) for size in group.values())


def flops_per_text(shape: str, length: int, *, lens: bool) -> float:
    """Return the operations of the matrix products that score a text, with one lens per layer or none."""
    config = SHAPES[shape]
    layers, unembedding = config["num_hidden_layers"], config["vocab_size"] * config["hidden_size"]
    matrices = parameter_bytes(shape) / 4 - unembedding
    attention = layers * config["num_attention_heads"] * config["head_dim"] * length  # half of it is masked
    return 2 * length * (matrices + attention + unembedding * (layers if lens else 1))


def random_tokens(shape: str, rows: int, length: int, seed: int = 1) -> list[list[int]]:
    """Return rows of random token ids, all of one length."""
    rng = np.random.default_rng(seed)
    return rng.integers(SHAPES[shape]["vocab_size"], size=(rows, length)).tolist()


def _tensors(config: dict[str, Any]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield the names and shapes of the weights, one group per file."""
    d, f, h = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    n, k = config["num_attention_heads"] * h, config["num_key_value_heads"] * h
    yield {"model.embed_tokens.weight": (config["vocab_size"], d), "model.norm.weight": (d,)}
    for i in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm": (d,),
            "self_attn.q_proj": (n, d),
            "self_attn.k_proj": (k, d),
            "self_attn.v_proj": (k, d),
            "self_attn.o_proj": (d, n),
            "post_attention_layernorm": (d,),
            "mlp.gate_proj": (f, d),
            "mlp.up_proj": (f, d),
            "mlp.down_proj": (d, f),
        }
        yield {f"model.layers.{i}.{name}.weight": size for name, size in layer.items()}


def _random(rng: np.random.Generator, size: tuple[int, ...], name: str, embed: int) -> np.ndarray:
    if len(size) == 1:
        return np.ones(size, np.float32)
    std = 2 / embed**0.5 if "embed_tokens" in name else size[1] ** -0.5
    values = rng.standard_normal(size, np.float32)
    values *= std
    return values
