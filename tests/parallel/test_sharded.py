import pytest

from tests.parallel import on_devices

pytestmark = pytest.mark.slow


def test_eight_devices():
    on_devices.run("sharded")
