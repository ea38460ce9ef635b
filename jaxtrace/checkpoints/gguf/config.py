"""Config of a GGUF model: its metadata under the names of Hugging Face's config.json."""

from __future__ import annotations

from jaxtrace.checkpoints.gguf.architectures import DENSE, MIXTURES, UNNORMALISED, WINDOW, Config
from jaxtrace.checkpoints.gguf.files import ROPE_FACTORS, ROPE_LONG, ROPE_SHORT, GgufModel, read_vector
from jaxtrace.checkpoints.gguf.keys import Keys
from jaxtrace.errors import CheckpointError
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.reader import MAX_LAYERS
from jaxtrace.models.families.unsupported import unsupported

TOKENS = "tokenizer.ggml.tokens"


def _check_router(keys: Keys, normalised: bool) -> None:
    """Refuse metadata of another router than llama.cpp computes for the architecture, a softmax over all experts."""
    computed = {"expert_gating_func": (0, 1), "expert_weights_norm": (normalised,), "expert_weights_scale": (0, 1)}
    for name, values in computed.items():
        if (stored := keys.get(name)) not in (None, *values):
            keys.fail(f"has {keys.model.architecture}.{name}={stored!r:.60}, which llama.cpp ignores here")


def config_of(model: GgufModel) -> Config:
    """Return the content of the config.json of a GGUF model.

    Raises:
      CheckpointError: the file holds no model, the architecture is not supported, metadata is missing or malformed, or
        some of it is not understood.
    """
    name, keys = model.architecture, Keys(model)
    if (holds := model.metadata.get("general.type", "model")) != "model":
        keys.fail(f"holds {holds!r:.60} instead of a model")
    if name not in DENSE | MIXTURES:
        raise CheckpointError(f"{model.files[0]}: {unsupported({'model_type': name})}")
    experts, routers = keys.get("expert_count"), any(".ffn_gate_inp." in tensor for tensor in model.tensors)
    if bool(experts) != routers:
        keys.fail(f"has {name}.expert_count={experts!r:.60} and {'' if routers else 'no '}routers (ffn_gate_inp)")
    if (architecture := (MIXTURES if experts else DENSE).get(name)) is None:
        keys.fail(f"has {name}.expert_count={experts!r:.60}, which jaxtrace does not support in {name}")
    window = keys.whole(WINDOW) if keys.get(WINDOW) else None
    model_type = architecture.model_type if window is None else architecture.windowed
    if model_type is None:
        keys.fail(f"has sliding windows ({name}.{WINDOW}={window}), which llama.cpp ignores here")
    family = FAMILIES[model_type]
    config: Config = {"model_type": model_type, "architectures": [family.ARCHITECTURES[0]]}
    for key, attribute in architecture.attributes.items():
        if architecture.by_layer and key == "feed_forward_length":
            continue
        config[attribute] = keys.number(key) if key.endswith("epsilon") else keys.whole(key)
    if config["num_hidden_layers"] > MAX_LAYERS:
        keys.fail(f"has {config['num_hidden_layers']:,} layers, and jaxtrace supports {MAX_LAYERS:,}")
    heads = config["num_attention_heads"]
    head_dim = keys.whole("attention.key_length", max(1, config["hidden_size"] // heads))
    if (values := keys.whole("attention.value_length", head_dim)) != head_dim:
        keys.fail(f"has keys of width {head_dim} and values of width {values}")
    if keys.get("attention.causal") not in (None, True):
        keys.fail("has attention in both directions")
    biases = any(f"blk.0.attn_{x}.bias" in model.tensors for x in ("q", "qkv"))
    optional = {
        "num_key_value_heads": heads if architecture.by_layer else keys.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "sliding_window": window,
        "attention_bias": biases,
        "qkv_bias": biases,
        "mlp_bias": "blk.0.ffn_up.bias" in model.tensors,
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "vocab_size": _vocabulary(keys),
        "enable_moe_block": bool(experts),
        "norm_topk_prob": name not in UNNORMALISED,
    }
    if experts:
        _check_router(keys, optional["norm_topk_prob"])
    config |= {key: value for key, value in optional.items() if key in family.DEFAULTS and value is not None}
    if architecture.rope:
        config |= _rope(config, keys, head_dim)
    architecture.more(config, keys)
    keys.finish()
    return config


def _vocabulary(keys: Keys) -> int:
    """Return the number of tokens: by its own key, or of the tokenizer, or of the embedding."""
    tokens, embedding = keys.model.metadata.get(TOKENS), keys.model.tensors.get("token_embd.weight")
    rows = None if embedding is None else embedding.shape[0]
    return keys.whole("vocab_size", len(tokens) if isinstance(tokens, list) and tokens else rows)


def _rope(config: Config, keys: Keys, head_dim: int) -> Config:
    """Return the attributes of rotary positions, in the old form of config.json."""
    rotated = keys.whole("rope.dimension_count", head_dim)
    rope: Config = {"rope_theta": keys.number("rope.freq_base", 10_000.0)}
    if rotated != head_dim:
        rope["partial_rotary_factor"] = rotated / head_dim
    scaling = _scaling(config, keys, rotated // 2)
    return rope | ({"rope_scaling": scaling} if scaling else {})


def _scaling(config: Config, keys: Keys, pairs: int) -> Config | None:
    """Return the scaling of the wavelengths, or None.

    Factors that llama.cpp stores as tensors are LongRoPE's: those of Llama 3's scaling hold for all lengths.
    """
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    original = keys.whole("rope.scaling.original_context_length", config["max_position_embeddings"])
    kind, stored = keys.get("rope.scaling.type") or "linear", keys.model.tensors.keys() & {*ROPE_FACTORS}
    if stored:
        if kind == "yarn" or (kind == "linear" and factor != 1) or stored == {ROPE_LONG} or stored == {ROPE_SHORT}:
            keys.fail(f"has rope scaling {kind!r:.60} and the factors {', '.join(sorted(stored))}")
        names = (ROPE_SHORT, ROPE_LONG) if ROPE_LONG in stored else ROPE_FACTORS[:1] * 2
        short, long = (read_vector(keys.model, name, pairs) for name in names)
        return {
            "rope_type": "longrope",
            "short_factor": short,
            "long_factor": long,
            "original_max_position_embeddings": original,
            "attention_factor": keys.number("rope.scaling.attn_factor", 1.0),
        }
    if kind == "none" or (kind == "linear" and factor == 1):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        keys.fail(f"has rope scaling {kind!r:.60}, without its factors")
    yarn = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    names = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow", "yarn_attn_factor": "attention_factor"}
    given = {attribute: f"rope.scaling.{key}" for key, attribute in names.items() if keys.get(f"rope.scaling.{key}")}
    for key in ("yarn_ext_factor", "attn_factor"):
        if keys.number(f"rope.scaling.{key}", 1.0) != 1:
            keys.fail(f"has rope.scaling.{key}={keys.get(f'rope.scaling.{key}')!r:.60} and YaRN")
    return yarn | {attribute: keys.number(key) for attribute, key in given.items()}
