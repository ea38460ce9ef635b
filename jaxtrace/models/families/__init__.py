"""The model families: a config mapping and a weight table each."""

from __future__ import annotations

from types import ModuleType

from jaxtrace.models.families import llama

FAMILIES: dict[str, ModuleType] = {module.MODEL_TYPE: module for module in (llama,)}
