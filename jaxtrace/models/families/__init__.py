"""Model families: each module holds a config mapping and a weight table."""

from __future__ import annotations

from types import ModuleType

from jaxtrace.models.families import gemma2, gemma3, gemma4, gpt2, gpt_neox, llama, mistral, mllama, phi3, qwen2, qwen3

# Module of each `model_type` in config.json.
FAMILIES: dict[str, ModuleType] = {
    model_type: module
    for module in (llama, mllama, mistral, phi3, qwen2, qwen3, gemma2, gemma3, gemma4, gpt2, gpt_neox)
    for model_type in module.MODEL_TYPES
}
