import pytest

from jaxtrace.models.families import FAMILIES
from tests.parallel import on_devices, sharded

pytestmark = pytest.mark.slow


def test_eight_devices_agree_with_one():
    on_devices.run("sharded")


@pytest.mark.nightly
def test_a_lens_at_some_steps_on_a_mesh_agrees_with_one_device():
    on_devices.run("sparse_lens", devices=4)


@pytest.mark.nightly
@pytest.mark.parametrize("mesh", ["model=2", "data=4,model=2", "data=2,model=2", "data=4"])
def test_states_of_delta_nets_on_other_meshes_agree_with_one_device(mesh):
    on_devices.run("sharded_hybrid", mesh)


@pytest.mark.nightly
@pytest.mark.parametrize("mesh", ["data=2,model=4", "model=2"])
def test_caches_with_windows_on_meshes_agree_with_one_device(mesh):
    on_devices.run("sharded_windows", mesh)


# Their decoder is that of gemma3_text, of gemma4_text, of ministral3, of llama, or of the text part alone.
SAME = {"gemma3", "gemma4", "gemma4_unified", "gemma4_unified_text", "mistral3", "exaone", "internlm3", "iquestcoder"}
SAME |= {"llama4", "qwen3_5", "qwen3_5_moe"}


@pytest.mark.nightly
@pytest.mark.parametrize("family", sorted({*FAMILIES} - {*sharded.FAMILIES} - SAME))
def test_every_other_family_on_eight_devices_agrees_with_one(family):
    on_devices.run("sharded_families", family)


@pytest.mark.nightly
def test_a_family_on_other_meshes_agrees_with_one_device():
    on_devices.run("sharded_families", "gemma2", "data=2,model=2", "model=2")


@pytest.mark.nightly
def test_experts_on_meshes_of_one_to_eight_devices_agree_with_one_device():
    on_devices.run("sharded_experts")
