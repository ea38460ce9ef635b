"""The kernels' benchmark from its command line: tables, refusals, comparisons with an earlier run, bad arguments."""

import csv
import struct

import pytest
from jaxtrace.kernels.dispatch import Implementation
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX
from tensorboardX.proto import event_pb2

from benchmarks import kernels, timing
from benchmarks.kernel_results import KEYS, NUMBERS
from benchmarks.machine import MeasuredMachine

pytestmark = pytest.mark.slow

MACHINE = MeasuredMachine("a machine", bandwidth=1e9, flops=1e9)
UNEMBED = ["--op", "unembed_moments", "--impl", "xla", "--repeats", "1"]
SMALL = ["--op", "softmax_moments", "--impl", "xla", "--repeats", "1"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(kernels, "this_machine", lambda: MACHINE)
    monkeypatch.setattr(kernels, "product_rate", lambda dtype: MACHINE.flops)
    monkeypatch.setattr(kernels, "CALL_SECONDS", 1e-6)
    monkeypatch.setattr(timing, "PAUSE", 0)


def rows_of(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


@pytest.mark.nightly
def test_csv_holds_consistent_numbers(tmp_path):
    out = tmp_path / "run.csv"
    kernels.main([*UNEMBED, "--shape", "G=2,R=3,D=8,V=50", "--out", str(out)])
    rows = {row["implementation"]: row for row in rows_of(out)}
    assert list(rows) == ["xla", "no-moments/largest-logits", "no-moments/stored-logits", "unfused"]
    assert all(row["shape"] == "G=2,R=3,D=8,V=50" and row["dtype"] == "float32" for row in rows.values())
    bare = min(float(row["ms"]) for name, row in rows.items() if name.startswith("no-moments"))
    for row in rows.values():
        seconds = float(row["ms"]) / 1e3
        assert float(row["GB/s"]) == pytest.approx(int(row["bytes"]) / seconds / 1e9, rel=2e-3)
        assert float(row["% of bandwidth"]) == pytest.approx(float(row["GB/s"]) * 100, rel=2e-3)
        assert int(row["FLOPs"]) == 2 * 6 * 8 * 50
        assert float(row["% of product"]) == pytest.approx(float(row["GFLOP/s"]) * 100, rel=2e-3)
        assert float(row["× no moments"]) == pytest.approx(float(row["ms"]) / bare, rel=2e-3)
        assert float(row["× unfused"]) == pytest.approx(float(row["ms"]) / float(rows["unfused"]["ms"]), rel=2e-3)


def test_no_baselines_leave_their_columns_empty(tmp_path):
    out = tmp_path / "run.csv"
    kernels.main([*SMALL, "--shape", "R=1,V=9", "R=2,V=9", "--against", "--dtype", "bfloat16", "--out", str(out)])
    rows = rows_of(out)
    assert [row["implementation"] for row in rows] == ["xla", "xla"]
    assert [row["shape"] for row in rows] == ["R=1,V=9", "R=2,V=9"]
    assert all(row["× no moments"] == row["× unfused"] == row["FLOPs"] == "" for row in rows)


def test_refusal_is_a_row_with_its_reason(tmp_path, monkeypatch):
    elsewhere = Implementation(lambda *_, **__: None, ("abacus",))
    odd = Implementation(lambda *_, **__: None, refuses=lambda logits, **_: f"{logits.shape[0]} is odd")
    monkeypatch.setitem(SOFTMAX.implementations, "elsewhere", elsewhere)
    monkeypatch.setitem(SOFTMAX.implementations, "odd", odd)
    out = tmp_path / "run.csv"
    options = ["--op", "softmax_moments", "--impl", "elsewhere", "odd", "xla", "--repeats", "1"]
    kernels.main([*options, "--shape", "R=3,V=9", "--against", "--out", str(out)])
    elsewhere, odd, xla = rows_of(out)
    assert "elsewhere: runs on abacus" in elsewhere["note"] and elsewhere["ms"] == ""
    assert "odd: 3 is odd" in odd["note"] and odd["ms"] == ""
    assert float(xla["ms"]) > 0 and xla["note"] == ""


def test_a_kernel_that_fails_leaves_the_other_rows(tmp_path, monkeypatch):
    def no_compiler(*_, **__):
        raise RuntimeError("no compiler\nfor this device")

    monkeypatch.setitem(SOFTMAX.implementations, "broken", Implementation(no_compiler))
    out = tmp_path / "run.csv"
    options = ["--op", "softmax_moments", "--impl", "xla", "broken", "reference", "--repeats", "1", "--out", str(out)]
    kernels.main([*options, "--shape", "R=3,V=9", "--against"])
    broken, xla, reference = rows_of(out)
    assert broken["note"].startswith("failed: RuntimeError('no compiler") and broken["ms"] == ""
    assert float(xla["Δ xla"]) == 0 and float(xla["× xla"]) == 1
    assert 0 < float(reference["Δ xla"]) < 1e-5
    assert float(reference["× xla"]) == pytest.approx(float(reference["ms"]) / float(xla["ms"]), rel=2e-3)


@pytest.mark.nightly
def test_earlier_run_gives_ratios(tmp_path, capsys):
    earlier, out = tmp_path / "earlier.csv", tmp_path / "run.csv"
    kernels.main([*SMALL, "--shape", "R=1,V=9", "R=2,V=9", "--against", "--out", str(earlier)])
    capsys.readouterr()
    kernels.main([*SMALL, "--shape", "R=2,V=9", "R=3,V=9", "--against", "--compare", str(earlier), "--out", str(out)])
    then = {row["shape"]: float(row["ms"]) for row in rows_of(earlier)}
    both, new = rows_of(out)
    assert float(both["× earlier"]) == pytest.approx(float(both["ms"]) / then["R=2,V=9"], rel=2e-3)
    assert new["× earlier"] == ""
    printed = capsys.readouterr().out
    assert "Earlier: earlier.csv. Machine: a machine" in printed
    assert "Rows of this run only: softmax_moments xla R=3,V=9 float32." in printed
    assert "Rows of the earlier run only: softmax_moments xla R=1,V=9 float32." in printed


@pytest.mark.nightly
def test_scalars_are_written_for_tensorboard(tmp_path):
    kernels.main([*UNEMBED, "--shape", "G=2,R=3,D=8,V=50", "--tensorboard", str(tmp_path)])
    (file,) = tmp_path.iterdir()
    scalars = {}
    data = file.read_bytes()
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        scalars |= {value.tag: value.simple_value for value in event.summary.value if value.HasField("simple_value")}
        data = data[16 + size :]
    assert scalars["unembed_moments/FLOPs/xla/float32/G2R3D8V50"] == 2 * 6 * 8 * 50
    assert len(scalars) == 4 * len(NUMBERS)
    assert all(" " not in tag and "%" not in tag for tag in scalars)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "softmax"], "invalid choice: 'softmax'"),
        (["--impl", "cuda"], "invalid choice: 'cuda'"),
        (["--shape", "R=6,V=9"], "R=6,V=9: has the wrong axes; unembed_moments takes G=…,R=…,D=…,V=…"),
        (["--repeats", "0"], "--repeats: 0 is too small; give 1 or more"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--out", "run.txt"], "--out: run.txt has an unknown ending; name it .md or .csv"),
        (["--compare", "absent.csv"], "--compare: absent.csv cannot be read (No such file"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        kernels.main(arguments)
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_foreign_table_is_refused(tmp_path, capsys):
    path = tmp_path / "other.csv"
    path.write_text(",".join(KEYS))
    with pytest.raises(SystemExit):
        kernels.main(["--compare", str(path)])
    assert "is not a CSV table" in capsys.readouterr().err
