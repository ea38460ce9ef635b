"""Model families: each module holds a config mapping and a weight table."""

from __future__ import annotations

from types import ModuleType

from jaxtrace.models.families import (
    dots1,
    flex_olmo,
    gemma2,
    gemma3,
    gemma4,
    glm4_moe,
    gpt2,
    gpt_neox,
    gpt_oss,
    llama,
    llama4,
    minimax_m2,
    ministral,
    ministral3,
    mistral,
    mistral3,
    mixtral,
    mllama,
    olmo2,
    olmo3,
    olmoe,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_5,
    qwen3_5_moe,
    qwen3_moe,
    qwen3_next,
    smollm3,
)

# Module of each `model_type` in config.json.
FAMILIES: dict[str, ModuleType] = {
    model_type: module
    for module in (
        llama,
        llama4,
        mllama,
        smollm3,
        mistral,
        mistral3,
        ministral,
        ministral3,
        mixtral,
        minimax_m2,
        phi3,
        qwen2,
        qwen2_moe,
        qwen3,
        qwen3_moe,
        qwen3_5,
        qwen3_5_moe,
        qwen3_next,
        gemma2,
        gemma3,
        gemma4,
        olmo2,
        olmo3,
        olmoe,
        flex_olmo,
        glm4_moe,
        dots1,
        gpt2,
        gpt_neox,
        gpt_oss,
    )
    for model_type in module.MODEL_TYPES
}
