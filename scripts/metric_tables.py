"""Write the metric tables of README.md and docs/*.md from the schema.

    python scripts/metric_tables.py            # rewrite every block that is stale
    python scripts/metric_tables.py --check    # print a diff and exit with status 1 if a block is stale

A block lies between `<!-- metrics:begin TABLE -->` and `<!-- metrics:end -->`; TABLE is a key of `TABLES`, by default
"recorded".
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from jaxtrace.schema import DERIVED, METRICS, RAW, Metric, feature_names, in_tensorboard

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- metrics:begin(?: (\w+))? -->\n).*?(<!-- metrics:end -->)", re.DOTALL)
TENSORBOARD = {
    "scalar": "mean of the latest rows",
    "histogram": "histogram of the latest rows, one per layer",
    "map": "layer × head, mean over all tokens so far",
}


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


TABLES: dict[str, Callable[[], str]] = {
    "recorded": recorded_table,
    "raw": raw_table,
    "tensorboard": tensorboard_table,
    "features": features_table,
}


def with_tables(text: str) -> str:
    """Return a page's text with its blocks written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2] or 'recorded']()}\n{block[3]}", text)


def stale_pages() -> dict[Path, tuple[str, str]]:
    """Return the pages whose blocks are stale: path → (text now, text with tables from the schema)."""
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
            sys.stdout.writelines(difflib.unified_diff(*lines, name, f"{name} from the schema"))
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
