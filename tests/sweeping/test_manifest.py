"""A damaged sweep.json is refused in one line, or holds the same records."""

import json

import numpy as np
import pytest

from jaxtrace.errors import StoreError
from jaxtrace.sweeping.manifest import CellRecord, Manifest
from jaxtrace.traces.location import Location
from tests.traces.damage import mutated_documents

RECORDS = {
    "model=demo/task=own/run=a": CellRecord("complete", "ab" * 32, 3, 40, 12.5),
    "model=demo/task=own/run=b": CellRecord("failed", error="RuntimeError: out of memory"),
}


@pytest.fixture
def root(tmp_path):
    manifest = Manifest(Location.of(tmp_path))
    manifest.records = dict(RECORDS)
    manifest.write()
    return tmp_path


def test_records_are_read_back(root):
    assert Manifest(Location.of(root)).records == RECORDS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"cells": 0}', "format: Field required"),
        ('{"format": 1, "cells": 0}', "cells: Input should be a valid dictionary"),
        ('{"format": 1, "cells": {"a": {"state": "done"}}}', "cells.a.state: Input should be 'waiting', "),
        ('{"format": 1, "cells": {"a": {"rows": -1}}}', "cells.a.rows: Input should be greater"),
        ('{"format": 1, "cells": {"a": {"rows": true}}}', "cells.a.rows: Input should be a valid integer"),
        ('{"format": 1, "cells": {"a": {"tokens": 1' + "0" * 99 + "}}}", "cells.a.tokens: Input should be less"),
        ('{"format": 1, "cells": {"a": {"tokens_per_second": NaN}}}', "NaN is not a JSON value"),
        ('{"format": 1, "date": "today", "cells": {}}', "Invalid isoformat string: 'today'"),
        ("[" * 100_000, "nested deeper than 100 levels"),
    ],
)
def test_impossible_records_are_refused(root, text, reason):
    (root / "sweep.json").write_text(text)
    with pytest.raises(StoreError, match=r"sweep.json: is not a sweep's record \(.*\); restore it, or delete") as error:
        Manifest(Location.of(root))
    assert reason in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("cases", [100, pytest.param(2_000, marks=pytest.mark.nightly)])
def test_damaged_records_are_refused_or_valid(root, cases):
    path = root / "sweep.json"
    text, refused = path.read_text(encoding="utf-8"), 0
    for document in mutated_documents(text, np.random.default_rng(8), cases):
        path.write_bytes(document if isinstance(document, bytes) else document.encode(errors="surrogatepass"))
        try:
            manifest = Manifest(Location.of(root))
        except StoreError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            manifest.write()
            json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert refused > cases / 2
