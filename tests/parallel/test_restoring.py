"""Restoring onto eight devices, from a Hugging Face checkpoint and from what it was converted to."""

import os
import subprocess
import sys
from pathlib import Path

from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from tests.checkpoints.conftest import GEMMA2, Folder

# Two kinds of layers in turn; heads, kv heads and vocabulary that eight, four and three devices divide or do not.
CONFIG = GEMMA2 | {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 3,
}


def test_the_same_on_any_mesh(tmp_path):
    source = Folder(tmp_path / "tiny", CONFIG).write_sharded()
    convert(open_checkpoint(source), tmp_path / "out")
    names = [source, str(tmp_path / "out"), str(tmp_path / "new")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.parallel.eight_devices", *names],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        cwd=Path(__file__).parent.parent.parent,
    )
    assert done.returncode == 0, done.stderr
