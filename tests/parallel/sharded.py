"""Checks on eight devices that need no file, in one process."""

from tests.parallel import choosing, compiled_steps, masked, sampled, sharded_families, sharded_kernels

FAMILIES = ("llama", "gemma2", "gpt2", "mllama")  # plain; soft caps and norms around blocks; biases; images


def check():
    """Raise AssertionError if a check fails."""
    choosing.check()
    compiled_steps.check()
    sharded_kernels.check()
    masked.check()
    sampled.check()
    for family in FAMILIES:
        sharded_families.check(family)
