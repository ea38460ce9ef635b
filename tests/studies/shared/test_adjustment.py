"""One rule for p-values of several tests, shown beside the raw ones."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from jaxtrace.studies._shared.adjustment import adjusted_table


def test_p_values_are_adjusted_within_their_family():
    p = np.array([0.01, 0.02, 0.03, 0.04, 0.5, 0.001])
    frame = pd.DataFrame(
        {"model": list("aaabbb"), "p": p, "n": 12, "trend_p": p[::-1], "p_half": p, "p90": p}, index=[0, 1, 2, 0, 1, 2]
    )
    table = adjusted_table(frame, "Tests.", "model")
    assert " ".join(table.frame) == ("model p p_adjusted n trend_p trend_p_adjusted p_half p_half_adjusted p90")
    expected = [*false_discovery_control(p[:3]), *false_discovery_control(p[3:])]
    assert table.frame["p_adjusted"].to_list() == pytest.approx(expected)
    assert table.text == (
        "Tests. p_adjusted, trend_p_adjusted, p_half_adjusted: over the lines of each model, "
        "after Benjamini and Hochberg."
    )


def test_a_missing_p_value_is_no_test_and_a_table_is_a_family():
    table = adjusted_table(pd.DataFrame({"p": [0.01, np.nan, 0.03]}), "Tests.")
    assert table.frame["p_adjusted"].to_list() == pytest.approx([0.02, np.nan, 0.03], nan_ok=True)
    assert "over the table's lines" in table.text
    assert adjusted_table(pd.DataFrame({"x": [1.0]}), "No tests.", "model").text == "No tests."
