"""The benchmark of probes: the interval of a median, and a step without some metrics."""

import numpy as np
import pytest

import jaxtrace as jt
from benchmarks import intervals, probes


def test_the_interval_of_a_median_is_of_order_statistics():
    """The median of 20 numbers lies between the 6th and the 15th with a probability of 95.9 %."""
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, 21.0))
    assert intervals.median_interval(ratios) == (10.5, 6, 15)
    low, high = intervals.median_interval(np.arange(1.0, intervals.LEAST_PAIRS + 1))[1:]
    assert (low, high) == (1, intervals.LEAST_PAIRS)


def test_a_step_without_a_metric_returns_the_others():
    call = probes._steps(jt.load("demo"), jt.Probes.of("output"), np.ones((1, 4), np.int32), 2, ("self_certainty",))
    for trace in (call(), call()):
        assert trace.self_certainty is None and trace.fisher_rao.shape == (2, 1) and (trace.fisher_rao > 0).all()


def test_too_few_pairs_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["probes", "--metrics", "fisher_rao", "--repeats", "5"])
    with pytest.raises(SystemExit):
        probes.main()
    assert "--repeats is 5; give 6 or more pairs" in capsys.readouterr().err
