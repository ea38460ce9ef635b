import atexit
import gc
import os
import shutil
import signal
import tempfile
import zlib
from pathlib import Path

from tests.compiler_flags import FLAGS

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported; set it to run the suite on an accelerator
# Most programs are compiled once and run once. `XLA_FLAGS= python -m pytest` compiles them as users do.
os.environ.setdefault("XLA_FLAGS", FLAGS)
# The workers and the commands of a run share one cache of compiled programs, which is not the user's own: the first
# process of pytest makes it before xdist starts its workers, which inherit the variable.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxtrace-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# A shell's background jobs ignore Ctrl-C, and `nohup` ignores SIGHUP; tests send both.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from jaxtrace.checkpoints.local import local_copy
from jaxtrace.models.published import find_published

MAPS, MOST_MAPS = Path("/proc/self/maps"), 20_000
# Full collections find little and visit every object of JAX's traces: 3 % of the suite's time with the usual 10.
gc.set_threshold(1_000, 10, 50)

settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("long", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """Compiled programs hold memory maps, of which Linux allows a process 65,530: fewer than the suite would take.

    They also hold millions of objects, which the garbage collector would visit in every full collection: a quarter of
    the suite's time.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        gc.unfreeze()
        jax.clear_caches()
        gc.collect()
    gc.freeze()


@pytest.fixture
def rng(request):
    """A generator of the test's own, the same on every run and in every order."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def shared_data(pytestconfig):
    """The data folder beside the checkout: public test sets, tokenizers and small checkpoints."""
    folder = (pytestconfig.rootpath / Path("../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def smollm2():
    """The directory of SmolLM2-135M-Instruct, a real model of 135 million parameters."""
    folder = local_copy(find_published("smollm2"))
    if folder is None or not folder.is_dir():
        pytest.skip("no local copy of SmolLM2-135M-Instruct in $JAXTRACE_MODELS")
    return folder


@pytest.fixture(scope="session")
def smollm2_gguf(smollm2):
    """The GGUF file from which the directory of SmolLM2-135M-Instruct was made."""
    file = next(smollm2.parent.glob("SmolLM2-135M-Instruct*.gguf"), None)
    if file is None:
        pytest.skip("no GGUF file of SmolLM2-135M-Instruct beside its directory")
    return file
