import jax
import pytest
from jax.sharding import AxisType

import jaxtrace
from jaxtrace import ConfigError
from jaxtrace.parallel.mesh import make_mesh


@pytest.mark.parametrize("text", ["model=1", " data = 1, model=1 "])
def test_mesh_from_text(text):
    mesh = make_mesh(text)
    assert dict(mesh.shape) == {part.split("=")[0].strip(): 1 for part in text.split(",")}
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    "text",
    ["", "8", "model", "model=", "model=0", "model=-1", "model=two", "data=1,data=1", "data=1;model=1", "modle=1"],
)
def test_malformed_text_is_refused(text):
    with pytest.raises(ConfigError) as error:
        make_mesh(text)
    assert str(error.value).startswith(f"mesh {text!r}: not sizes of data and model; write it like 'data=2,model=4'")


def test_too_few_devices_are_refused():
    count = jax.device_count()
    with pytest.raises(ConfigError, match=f"needs {2 * count} devices, and there are {count}; make it smaller"):
        make_mesh(f"data=2,model={count}")


def test_mesh_from_sizes():
    assert jaxtrace.mesh(data=1, model=1) == make_mesh("data=1,model=1")
    with pytest.raises(ConfigError, match="mesh data=0,model=2: a size is no whole number of at least 1"):
        jaxtrace.mesh(data=0, model=2)
