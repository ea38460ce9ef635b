"""Loading onto eight devices, from a Hugging Face checkpoint and from its conversion."""

import pytest

from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from tests.checkpoints.conftest import GEMMA2, Folder
from tests.parallel import on_devices

pytestmark = pytest.mark.slow

# Two alternating kinds of layers; key heads are split over devices or shared by them.
CONFIG = GEMMA2 | {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 3,
}


@pytest.mark.parametrize("meshes", ["one", pytest.param("all", marks=pytest.mark.nightly)])
def test_parameters_and_traces_are_the_same_on_every_mesh(meshes, tmp_path):
    source = Folder(tmp_path / "tiny", CONFIG).write_sharded()
    convert(open_checkpoint(source), tmp_path / "out")
    on_devices.run("restoring", source, tmp_path / "out", tmp_path / "new", meshes)
