"""Layers of Gemma 4: windows, sizes, rotary positions, experts, and keys and values that layers share."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from jaxtrace.models.config import Experts, LayerKind
from jaxtrace.models.families import common, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.rope_config import Rope

TYPES = ("sliding_attention", "full_attention")
PERIOD = 6  # by default every sixth layer has full attention
ROPES: dict[str, dict[str, Any]] = {
    "sliding_attention": {"rope_theta": 10_000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}


def layer_kinds(reader: ConfigReader, ignored: dict[str, str] | None) -> list[LayerKind]:
    """Return the kinds of all layers; the last ones attend to the keys and values of the last layer of their type."""
    layers, shared = reader.layers(), reader.whole("num_kv_shared_layers")
    default = common.alternating_types(layers, PERIOD)
    types = [*common.layer_types(reader, default, list(TYPES))[:-1], "full_attention"]  # as transformers forces it
    first = layers - shared
    if first < 1 or {*types[:first]} != {*types}:
        reader.fail(f"has num_kv_shared_layers={shared}; the layers before them must include each of layer_types")
    sizes = _sizes(reader, types, ignored)
    rope = _ropes(reader, types, sizes)
    windows = {"sliding_attention": reader.positive("sliding_window"), "full_attention": None}
    keys_as_values = {"sliding_attention": False, "full_attention": reader.flag("attention_k_eq_v")}
    wide = {"feed_forward": 2 * reader.positive("intermediate_size")} if reader.flag("use_double_wide_mlp") else {}
    plain = {name: LayerKind(windows[name], rope[name], keys_as_values=keys_as_values[name]) for name in {*types}}
    by_type = {name: replace(kind, **sizes[name]) for name, kind in plain.items()}
    own = [by_type[name] for name in types[:first]]
    last = {name: i for i, name in enumerate(types[:first])}
    return own + [replace(by_type[name], kv_source=last[name], **wide) for name in types[first:]]


def experts(reader: ConfigReader) -> Experts | None:
    """Return the experts beside the dense feed-forward block of every layer; None for a dense decoder."""
    names = "num_experts", "moe_intermediate_size", "top_k_experts"
    if not reader.flag("enable_moe_block"):
        reader.ignore(*names)
        return None
    return mixtures.experts(reader, *names, router_norm=True, expert_scale=True, beside_dense=True)


def _sizes(reader: ConfigReader, types: list[str], ignored: dict[str, str] | None) -> dict[str, dict[str, int]]:
    """Return the sizes of each type of layers that differ from the decoder's, from the published or the saved form."""
    decoder = {name: reader.positive(name) for name in ("head_dim", "num_key_value_heads")}
    heads = reader.positive("num_attention_heads")
    full = {"head_dim": reader.get("global_head_dim"), "num_key_value_heads": reader.get("num_global_key_value_heads")}
    if full["num_key_value_heads"] is None or not reader.flag("attention_k_eq_v"):
        del full["num_key_value_heads"]
    by_layer: dict[int, Any] = {i: full for i, name in enumerate(types) if name == "full_attention"}
    if "per_layer_config" in reader.given:
        saved = reader.mapping("per_layer_config")
        by_layer = {int(key): value for key, value in saved.items() if re.fullmatch("[0-9]{1,5}", key)}
        if len(by_layer) < len(saved) or not {*by_layer} <= {*range(len(types))}:
            reader.fail(f"has per_layer_config of {', '.join(saved)}; jaxtrace supports numbers of layers, from 0")
    sizes: dict[str, dict[str, int]] = {}
    for i, name in enumerate(types):
        overrides = reader.as_mapping("per_layer_config", by_layer.get(i))
        with ConfigReader(overrides, reader.source, decoder, reader.family, ignored, f"per_layer_config.{i}.") as layer:
            width, kv_heads = layer.positive("head_dim"), layer.positive("num_key_value_heads")
            if width % 2 or heads % kv_heads:
                layer.fail(f"has head_dim={width} and {kv_heads} key/value heads in layer {i}, which do not fit")
        size = {"head_dim": width} if width != decoder["head_dim"] else {}
        size |= {"kv_heads": kv_heads} if kv_heads != decoder["num_key_value_heads"] else {}
        if sizes.setdefault(name, size) != size:
            reader.fail(f"has per_layer_config with other sizes in layer {i} than in earlier layers of its type")
    return sizes


def _ropes(reader: ConfigReader, types: list[str], sizes: dict[str, dict[str, int]]) -> dict[str, Rope]:
    """Return the rotary positions of each type of layers."""
    by_type = reader.as_mapping("rope_parameters", reader.get("rope_parameters") or ROPES)
    if not {*types} <= {*by_type} <= {*TYPES}:
        reader.fail(f"has rope_parameters of {', '.join(sorted(by_type))}; jaxtrace supports one entry per layer type")
    read = {}
    for name in {*types}:
        settings = reader.as_mapping("rope_parameters", by_type[name])
        reader.positive_number("rope_theta", settings.get("rope_theta"))
        read[name] = ropes.rope_of(reader, settings, sizes[name].get("head_dim"))
        if read[name].by_length or settings.get("truncate") is False:
            reader.fail(f"has rope_parameters={settings!r} in {name}, which transformers does not compute there")
    return read
