"""`jaxtrace tuned-lens`, its lens in `jaxtrace trace`, and refusals of the studies that use a lens."""

import json

import pytest

import jaxtrace as jt
from jaxtrace.engine.tuned_lens import CARD

TRAIN = ("tuned-lens", "demo", "--task", "lab", "--limit", 60, "--steps", 3, "--batch", 2, "--length", 16)


def refused(done, *names):
    """Assert that a command was refused in one line that holds some words."""
    assert done.status == 2, done.out + done.err
    assert done.err.count("\n") == 1 and done.err.startswith("jaxtrace: "), done.err
    assert [name for name in names if name not in done.err] == [], done.err


@pytest.mark.slow
def test_a_trained_lens_is_used_by_a_trace(jaxtrace, no_plots, tmp_path):
    lens, out = tmp_path / "lens", tmp_path / "trace"
    done = jaxtrace(*TRAIN, "--out", lens)
    assert done.status == 0, done.err
    card = json.loads((lens / CARD).read_text(encoding="utf-8"))
    assert card["model"] == "demo" and card["text"] == "lab" and card["recipe"]["steps"] == 3
    assert all(f"{value:.3f}" in done.out for value in (*card["kl_logit"], *card["kl_tuned"]))
    refused(jaxtrace(*TRAIN, "--out", lens), "already holds a lens")
    run = ("trace", "demo", "--limit", 2, "--max-new-tokens", 2, "--probes", "lens", "--out", out)
    assert jaxtrace(*run, "--lens", lens).status == 0
    trace = jt.open(out)
    assert trace.info["lens"] == jt.load("demo", lens=lens).lens.hash
    refused(jaxtrace(*run, "--resume"), "lens is ", "resume with the same configuration")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("trace", "demo", "--lens", "nowhere"), ["nowhere: No such file or directory", "jaxtrace tuned-lens"]),
        (("tuned-lens", "demo", "--limit", 2), ["tokens of text make 0 sequences of 128", "give more text"]),
        (("study", "expansion"), ["this study runs models itself; name models (--model)"]),
        (("study", "interventions", "--model", "demo", "--task", "lab"), ["has no list of choices"]),
        (("study", "interventions", "--model", "demo", "--count", 9), ["demo-often-00: has no list of choices"]),
        (("study", "interventions", "--options", "word"), ["options is word; it must be 'letter' or 'choice'"]),
    ],
)
def test_wrong_lenses_texts_and_studies_are_refused(jaxtrace, tmp_path, arguments, names):
    refused(jaxtrace(*arguments, "--out", tmp_path / "out"), *names)
