"""Write jaxtrace/models/families/known.py: the attributes of a config.json that transformers knows, by family.

Usage: python scripts/config_names.py

A name is known if a family's config class declares it, or if code between a config.json and the logits reads it. The
source of transformers is parsed, not imported: that needs no torch, and finds names that are read with `getattr`.
"""

from __future__ import annotations

import ast
import importlib.util
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

FILE = Path(__file__).parent.parent / "jaxtrace" / "models" / "families" / "known.py"
FAMILIES = (
    "dots1",
    "flex_olmo",
    "gemma2",
    "gemma3",
    "gemma4",
    "gemma4_unified",
    "glm4_moe",
    "gpt2",
    "gpt_neox",
    "gpt_oss",
    "llama",
    "llama4",
    "minimax_m2",
    "ministral",
    "ministral3",
    "mistral",
    "mistral3",
    "mixtral",
    "mllama",
    "olmo2",
    "olmo3",
    "olmoe",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_moe",
    "qwen3_next",
    "smollm3",
)
SHARED = (
    "cache_utils.py",
    "configuration_utils.py",
    "core_model_loading.py",
    "dynamic_module_utils.py",
    "generation/utils.py",
    "initialization.py",
    "integrations/flash_attention.py",
    "integrations/flex_attention.py",
    "integrations/heterogeneity",
    "integrations/sdpa_attention.py",
    "masking_utils.py",
    "modeling_layers.py",
    "modeling_rope_utils.py",
    "modeling_utils.py",
    "models/auto/auto_factory.py",
    "models/auto/configuration_auto.py",
    "utils/generic.py",
    "utils/output_capturing.py",
)
ACCESSORS = ("getattr", "hasattr", "setattr")  # calls whose second argument is a name
LOOKUPS = ("get", "pop", "setdefault")  # methods whose first argument is a name


def known() -> dict[str, set[str]]:
    """Return the known names by family; "" has those of all families."""
    root = Path(importlib.util.find_spec("transformers").submodule_search_locations[0])  # pyright: ignore
    shared = set().union(*(names_in(file) for part in SHARED for file in _files(root / part)))
    own = {
        family: set().union(
            *(names_in(root / "models" / family / f"{kind}_{family}.py") for kind in ("configuration", "modeling"))
        )
        for family in FAMILIES
    }
    return {"": shared} | {family: names - shared for family, names in own.items()}


def names_in(file: Path) -> set[str]:
    """Return the names of config attributes that a module declares or reads."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    of_configs = "configuration" in file.name or "rope" in file.name  # here `self` and `kwargs` are configs
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = {name for node in ast.walk(tree) for name in _names(node, of_configs)}
    for function in functions:
        if any(_is_dynamic(node, of_configs) for node in ast.walk(function)):
            # A name that is read through a variable is a text in the same function.
            texts = (node.value for node in ast.walk(function) if isinstance(node, ast.Constant))
            found |= {text for text in texts if isinstance(text, str)}
    return {name for name in found if name.isidentifier() and not name.startswith("__")}


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.py")) if path.is_dir() else [path]


def _names(node: ast.AST, of_configs: bool) -> Iterator[str]:
    match node:
        case ast.Attribute(value=owner, attr=name) if _is_config(owner, of_configs):
            yield name
        case ast.Call(func=ast.Name(id=call), args=[owner, ast.Constant(value=str(name)), *_]) if call in ACCESSORS:
            if _is_config(owner, of_configs):
                yield name
        case ast.Call(func=ast.Attribute(value=owner, attr=call), args=[ast.Constant(value=str(name)), *_]):
            if call in LOOKUPS and _is_config(owner, of_configs):
                yield name
        case ast.Subscript(value=owner, slice=ast.Constant(value=str(name))) if _is_config(owner, of_configs):
            yield name
        case ast.Compare(left=ast.Constant(value=str(name)), comparators=[owner]) if _is_config(owner, of_configs):
            yield name
        case ast.AnnAssign(target=ast.Name(id=name)) if of_configs:
            yield name
        case ast.Assign(targets=[ast.Name(id="attribute_map")], value=ast.Dict(keys=keys)) if of_configs:
            yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def _is_dynamic(node: ast.AST, of_configs: bool) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=call), args=[owner, name, *_]) if call in ACCESSORS:
            return _is_config(owner, of_configs) and not isinstance(name, ast.Constant)
    return False


def _is_config(node: ast.AST, of_configs: bool) -> bool:
    """Return whether an expression is a model's config, judged by the last word of its name."""
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word) | ast.Call(func=ast.Attribute(attr=word)):
            config = word in ("config", "config_dict", "get_text_config") or word.endswith(("_config", "Config"))
            generation = word.endswith(("generation_config", "compile_config", "distributed_config"))
            return (config and not generation) or (of_configs and word in ("self", "kwargs"))
    return False


def text() -> str:
    """Return the content of known.py."""
    names = known()

    def block(words: set[str]) -> str:
        return textwrap.fill(" ".join(sorted(words)), 110, initial_indent="    ", subsequent_indent="    ")

    families = "\n".join(f'    "{name}": """\n{block(words)}\n    """,' for name, words in names.items() if name)
    return (
        '"""Attributes of a config.json that transformers knows; scripts/config_names.py writes this file."""\n\n'
        f'VERSION = "{version("transformers")}"  # of transformers\n\n'
        f'_SHARED = """\n{block(names[""])}\n"""\n\n'
        f"_OWN = {{\n{families}\n}}\n\n"
        "# Names that a family's config class declares, or that code which builds or runs its models reads.\n"
        "KNOWN = {family: frozenset((_SHARED + names).split()) for family, names in _OWN.items()}\n"
    )


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
