"""Lists of settings in YAML files, where a lone value stands for a mapping of it."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator

Entry = dict[str, Any]  # settings of a run, and sometimes its "name"


def entries(name: str, implied: Entry | None = None) -> BeforeValidator:
    """Return a validator that reads one entry or several, each a mapping of settings or the value of one setting.

    Args:
      name: setting that a plain value stands for.
      implied: defaults of the entries that are mappings.
    """

    def read(value: Any) -> tuple[Entry, ...]:
        listed = value if isinstance(value, list | tuple) else [value]
        if not listed:
            raise ValueError("give at least one entry, or drop the setting")
        return tuple((implied or {}) | entry if isinstance(entry, dict) else {name: entry} for entry in listed)

    return BeforeValidator(read)
