"""Checks on eight devices that need no file, in one process."""

from tests.parallel import choosing, compiled_steps, masked, sampled, sharded_families, sharded_hybrid, sharded_kernels

# Soft caps and norms around blocks; shared keys, layer inputs and experts; images. The other families run nightly.
FAMILIES = ("gemma2", "gemma4_text", "mllama")


def check():
    """Raise AssertionError if a check fails."""
    choosing.check()
    compiled_steps.check()
    sharded_kernels.check()
    masked.check()
    sampled.check()
    sharded_hybrid.check()
    for family in FAMILIES:
        sharded_families.check(family)
