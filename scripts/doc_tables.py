"""Write the tables of README.md and docs/*.md that follow from the code: metrics, families, sizes, refusals.

    python scripts/doc_tables.py            # rewrite every block that is stale
    python scripts/doc_tables.py --check    # print a diff and exit with status 1 if a block is stale

A block lies between `<!-- table:begin NAME -->` and `<!-- table:end -->`; NAME is a key of `TABLES`.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import itertools
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from jaxtrace.errors import ConfigError
from jaxtrace.estimators import known_estimators
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.known import KNOWN
from jaxtrace.models.families.reader import ACTIVATIONS, NEUTRAL
from jaxtrace.models.families.unsupported import DIFFERENCES
from jaxtrace.models.published import PUBLISHED
from jaxtrace.schema import DERIVED, METRICS, RAW, Metric, feature_names, in_tensorboard

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- table:begin (\w+) -->\n).*?(<!-- table:end -->)", re.DOTALL)
TENSORBOARD = {
    "scalar": "mean of the latest rows",
    "histogram": "histogram of the latest rows, one per layer",
    "map": "layer × head, mean over all tokens so far",
}
# Attributes that every family computes.
COMMON = """
vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
max_position_embeddings rms_norm_eps hidden_act hidden_activation activation_function tie_word_embeddings
n_embd n_head n_inner n_layer n_positions layer_norm_epsilon layer_norm_eps text_config model_type
rope_theta rope_parameters rope_scaling partial_rotary_factor original_max_position_embeddings
"""
LIMIT = re.compile(r" has (?P<name>\w+)=.*; jaxtrace supports (?P<values>.*); this checkpoint cannot")
JSON = {"None": "null", "True": "true", "False": "false"}
NAMES = ", ".join(map(repr, ACTIVATIONS))


def recorded_table() -> str:
    """Return the table of the metrics that a trace records."""
    return _definitions(METRICS.values())


def raw_table() -> str:
    """Return the table of the raw material that a trace records on request."""
    return _definitions(RAW.values())


def tensorboard_table() -> str:
    """Return the table of the metrics' TensorBoard tags."""
    rows = [
        (f"`{METRICS[name].tag(kind)}`", METRICS[name].unit, text)
        for kind, text in TENSORBOARD.items()
        for name in in_tensorboard(kind)
    ]
    return _table(("tag", "unit", "value"), rows)


def features_table() -> str:
    """Return the table of the metrics that a confidence model uses."""
    return _definitions((METRICS | DERIVED)[name] for name in feature_names())


def families_table() -> str:
    """Return the table of the families: config types, sizes, what is exact, and what is refused and why."""
    rows = []
    for module in dict.fromkeys(FAMILIES.values()):
        sizes = [model.parameters for model in PUBLISHED if model.raw["model_type"] in module.MODEL_TYPES]
        limited = limits(module)
        everywhere = {name for name, (_, kinds) in limited.items() if len(kinds) == len(module.MODEL_TYPES)}
        rows.append(
            (
                module.__doc__.splitlines()[0].rstrip("."),
                "<br>".join(f"`{name}`" for name in (*module.MODEL_TYPES, *module.ARCHITECTURES)),
                _range(sizes),
                ", ".join(f"`{name}`" for name in sorted(_attributes(module) - {*COMMON.split()} - everywhere)),
                "<br>".join(_refused(module, name, *limit) for name, limit in limited.items()),
            )
        )
    return _table(("family", "config types", "published sizes", "exact besides", "refused, and why"), rows)


def sizes_table() -> str:
    """Return the table of the published sizes."""
    rows = (
        (model.family, f"`{model.name}`", model.hub_id, f"{model.parameters:,}", f"{model.config.context:,}")
        for model in PUBLISHED
    )
    return _table(("family", "name", "hub id", "parameters", "context"), rows)


def unsupported_table() -> str:
    """Return the table of architectures that are refused by name, with what differs and what is nearest."""
    merged: dict[tuple[str, str], list[str]] = {}
    for difference, nearest, names in DIFFERENCES:
        merged.setdefault((difference, nearest), []).extend(f"`{name}`" for name in names.split())
    rows = ((", ".join(names), difference, f"`{nearest}`") for (difference, nearest), names in merged.items())
    return _table(("model types", "what differs", "nearest supported"), rows)


def _attributes(module: ModuleType) -> set[str]:
    """Return the attributes that a family reads at the top and in `text_config`."""
    return {*module.DEFAULTS, *getattr(module, "TEXT_DEFAULTS", ())}


@functools.cache
def limits(module: ModuleType) -> dict[str, tuple[str, list[str]]]:
    """Return the attributes of which a family computes only some values, these values, and the model types.

    Another value is tried, at the top of the config and in `text_config`, and the refusal is read.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    own = _attributes(module) | KNOWN[module.__name__.rpartition(".")[2]]
    names = own - NEUTRAL.keys() - {*COMMON.split()} | {*getattr(module, "REFUSED", ())}
    for name, kind in itertools.product(sorted(names), module.MODEL_TYPES):
        for config in ({name: "?"}, {"text_config": {name: "?"}}):
            try:
                module.decoder_config({"model_type": kind, **config}, "")
            except ConfigError as error:
                limit = LIMIT.search(str(error))
                if limit and limit["name"] == name and not limit["values"].startswith((NAMES, "a list of")):
                    values = re.sub("None|True|False", lambda word: JSON[word[0]], limit["values"])
                    kinds = found.setdefault(name, (values.replace(", ", " and "), []))[1]
                    kinds += [kind] if kind not in kinds else []
    return found


def _refused(module: ModuleType, name: str, values: str, kinds: list[str]) -> str:
    where = "" if len(kinds) == len(module.MODEL_TYPES) else f" in {' and '.join(f'`{kind}`' for kind in kinds)}"
    reason = getattr(module, "REFUSED", {}).get(name)
    return f"`{name}` other than {values}{where}" + (f": {reason}" if reason else "")


def _range(sizes: list[int]) -> str:
    """Return the number of sizes and their smallest and largest: "3, 2.61 B to 27.2 B"."""
    return f"{len(sizes)}, {' to '.join(dict.fromkeys(map(_short, (min(sizes), max(sizes)))))}" if sizes else ""


def _short(parameters: int) -> str:
    return f"{parameters / 1e9:.3g} B" if parameters >= 1e9 else f"{parameters / 1e6:.3g} M"


def estimators_table() -> str:
    """Return the table of the estimators: formula, what each needs, passes of the model, direction and source."""
    rows = (
        (
            f"`{each.name}`",
            each.formula.replace("|", "\\|"),
            ", ".join([*(f"`{name}`" for name in each.metrics), *each.required]),
            each.passes,
            "uncertainty" if each.higher_is_uncertain else "confidence",
            each.source,
        )
        for each in known_estimators().values()
        if each.compute.__module__.startswith("jaxtrace.")
    )
    return _table(("estimator", "formula", "needs", "passes", "rises with", "source"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "recorded": recorded_table,
    "raw": raw_table,
    "tensorboard": tensorboard_table,
    "features": features_table,
    "families": families_table,
    "sizes": sizes_table,
    "unsupported": unsupported_table,
    "estimators": estimators_table,
}


def with_tables(text: str) -> str:
    """Return a page's text with its blocks written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}\n{block[3]}", text)


def stale_pages() -> dict[Path, tuple[str, str]]:
    """Return the pages whose blocks are stale: path → (text now, text with tables from the code)."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    return {page: (text, after) for page, text in texts.items() if (after := with_tables(text)) != text}


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with status 1 if a block is stale")
    check = parser.parse_args().check
    stale = stale_pages()
    for page, (before, after) in stale.items():
        if check:
            name = page.relative_to(ROOT).as_posix()
            lines = (text.splitlines(keepends=True) for text in (before, after))
            sys.stdout.writelines(difflib.unified_diff(*lines, name, f"{name} from the code"))
        else:
            page.write_text(after, encoding="utf-8")
    return int(check and bool(stale))


def _definitions(metrics: Iterable[Metric]) -> str:
    rows = ((f"`{m.name}`", ", ".join(m.shape), m.group or "always", m.unit, m.definition) for m in metrics)
    return _table(("metric", "per", "group", "unit", "definition"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, *(tuple(cell or "–" for cell in row) for row in rows)]
    first, *others = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([first, f"|{'---|' * len(header)}", *others])


if __name__ == "__main__":
    sys.exit(main())
