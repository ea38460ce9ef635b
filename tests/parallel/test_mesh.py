import jax
import pytest
from jax.sharding import AxisType

import jaxtrace
from jaxtrace import ConfigError
from jaxtrace.parallel.mesh import make_mesh


@pytest.mark.parametrize("text", ["model=1", " data = 1, model=1 "])
def test_a_mesh(text):
    mesh = make_mesh(text)
    assert dict(mesh.shape) == {part.split("=")[0].strip(): 1 for part in text.split(",")}
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    "text",
    ["", "8", "model", "model=", "model=0", "model=-1", "model=two", "data=1,data=1", "data=1;model=1", "modle=1"],
)
def test_what_is_no_mesh(text):
    with pytest.raises(ConfigError) as error:
        make_mesh(text)
    assert str(error.value).startswith(f"mesh {text!r}: not sizes of data and model; write it like 'data=2,model=4'")


def test_too_few_devices():
    there = jax.device_count()
    with pytest.raises(ConfigError, match=f"needs {2 * there} devices, and there are {there}; make it smaller"):
        make_mesh(f"data=2,model={there}")


def test_a_mesh_of_sizes():
    assert jaxtrace.mesh(data=1, model=1) == make_mesh("data=1,model=1")
    with pytest.raises(ConfigError, match="mesh data=0,model=2: sizes are 1 or more"):
        jaxtrace.mesh(data=0, model=2)
