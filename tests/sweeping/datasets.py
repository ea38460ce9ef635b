"""Comparison of datasets row by row."""

import numpy as np


def assert_same_dataset(got, want):
    """Assert equal runs, each with every prompt once, equal tokens and ids, and metrics within rounding."""
    assert [run.partition for run in got.runs] == [run.partition for run in want.runs]
    assert all(run.info["complete"] for run in got.runs)
    for run in want.runs:
        got_rows, want_rows = (list(dataset.filter(**run.keys).rows) for dataset in (got, want))
        assert [row.prompt for row in got_rows] == [row.prompt for row in want_rows]
        for mine, other in zip(got_rows, want_rows, strict=True):
            assert mine.prompt_tokens.tolist() == other.prompt_tokens.tolist()
            assert mine.metrics["token"].tolist() == other.metrics["token"].tolist()
            assert (mine.text, mine.stop, mine.pieces) == (other.text, other.stop, other.pieces)
            assert mine.metrics.keys() == other.metrics.keys()
            for name, values in other.metrics.items():
                np.testing.assert_allclose(mine.metrics[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    for table in ("tokens", "prompts"):
        assert getattr(got, table).count_rows() == getattr(want, table).count_rows()
