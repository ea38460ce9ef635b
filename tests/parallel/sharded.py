"""All checks on eight devices that need no file."""

from jaxtrace.models.families import FAMILIES
from tests.parallel import choosing, compiled_steps, masked, sampled, sharded_families, sharded_kernels


def check():
    """Raise AssertionError if a check fails."""
    choosing.check()
    compiled_steps.check()
    sharded_kernels.check()
    masked.check()
    sampled.check()
    for family in {*FAMILIES} - {"gemma3"}:  # gemma3 has the decoder of gemma3_text
        sharded_families.check(family)
