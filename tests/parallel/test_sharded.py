import pytest

from tests.parallel import on_devices

pytestmark = pytest.mark.slow


def test_eight_devices_agree_with_one():
    on_devices.run("sharded")
