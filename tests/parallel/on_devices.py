"""Run checks that need several devices in a process with virtual devices.

python -m tests.parallel.on_devices NAME ARGUMENT… calls `check(ARGUMENT…)` of tests/parallel/NAME.py.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

from tests.compiler_flags import FLAGS


def run(name, *arguments, devices=8):
    """Run a check in a new process and assert that it passes."""
    flags = f"--xla_force_host_platform_device_count={devices} {FLAGS}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.parallel.on_devices", name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        cwd=Path(__file__).parent.parent.parent,
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    importlib.import_module(f"tests.parallel.{sys.argv[1]}").check(*sys.argv[2:])
