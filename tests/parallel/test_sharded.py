from tests.parallel import on_devices


def test_eight_devices():
    on_devices.run("sharded")
