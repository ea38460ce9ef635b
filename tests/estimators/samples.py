"""Traces of several answers to each prompt, written by hand."""

import numpy as np

import jaxtrace as jt
from jaxtrace.traces.row import Row


def sample(pieces, logprobs, prompt="Who?", stop="length"):
    """Return a row that draws pieces of text with given log-probabilities; its entropies are twice the surprisals."""
    logprobs = np.asarray(logprobs, np.float32)
    return Row(
        prompt=jt.Prompt(text=prompt),
        prompt_tokens=np.arange(2, dtype=np.int32),
        prompt_pieces=("a", "b"),
        metrics={"token": np.arange(len(pieces), dtype=np.int32), "logprob": logprobs, "entropy": -2 * logprobs},
        pieces=tuple(pieces),
        text="".join(pieces[:-1] if stop == "stop_token" else pieces),
        stop=stop,
    )


def trace_of(rows):
    return jt.Trace(rows, {"mode": "generate", "layers": 2, "heads": 2, "alphas": ()})
