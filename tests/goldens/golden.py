"""A tiny checkpoint with the results of transformers, in one npz of less than 200 kB."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.engine.reference import Run

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """A tiny checkpoint and the reference's run of it.

    Attributes:
      config: content of config.json.
      weights: arrays by their names in the checkpoint.
      tokens: token ids that were fed [T].
      run: forward pass of transformers.
    """

    config: dict
    weights: dict
    tokens: np.ndarray
    run: Run

    def save(self, path):
        arrays = {f"run/{name}": x for name, x in vars(self.run).items() if x is not None}
        arrays |= {f"weights/{name}": x for name, x in self.weights.items()}
        np.savez_compressed(path, config=json.dumps(self.config), tokens=self.tokens, **arrays)

    @classmethod
    def load(cls, path):
        with np.load(path) as stored:
            weights = {k.removeprefix("weights/"): stored[k] for k in stored if k.startswith("weights/")}
            names = [field.name for field in dataclasses.fields(Run) if f"run/{field.name}" in stored]
            run = Run(**{name: stored[f"run/{name}"] for name in names})
            return cls(json.loads(str(stored["config"])), weights, stored["tokens"], run)

    def write_checkpoint(self, directory):
        """Write the checkpoint in Hugging Face's layout."""
        (directory / "config.json").write_text(json.dumps(self.config))
        save_file(self.weights, directory / "model.safetensors", metadata={"format": "pt"})
