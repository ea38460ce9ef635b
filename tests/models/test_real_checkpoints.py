"""Trained checkpoints against transformers (eager, float32), over a text that the model generates."""

import numpy as np
import pytest

import jaxtrace
from tests.engine.reference import assert_metrics, metrics
from tests.models import hugging_face
from tests.models.parity import assert_parity

BOS = {"stories260K": 1, "TinyStories-656K": 1, "babyllama-105": 1, "capp-gpt2": 49}
STEPS = 63


@pytest.mark.parametrize("name", BOS)
def test_every_step_of_a_generated_text(name, shared_data):
    directory = shared_data / "checkpoints" / name
    if not directory.is_dir():
        pytest.skip(f"no {directory.name} among the shared checkpoints")
    model = jaxtrace.load(str(directory))
    row = model.generate([[BOS[name]]], max_new_tokens=STEPS, stop_tokens=()).rows[0]
    drawn = row.metrics["token"]
    assert len(drawn) == STEPS
    tokens = [BOS[name], *drawn.tolist()]
    run = hugging_face.run(hugging_face.load(directory), tokens)
    np.testing.assert_array_equal(drawn, run.logits[:-1].argmax(axis=-1))
    want = {name: values[:-1] for name, values in metrics(run, np.append(drawn, -1)).items()}
    assert_metrics(row.metrics, want, run.lens_logits[:-1])
    assert_parity(jaxtrace.load(str(directory), stacked=True), tokens, run)
