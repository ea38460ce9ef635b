"""All that is checked on eight devices and needs no file."""

from jaxtrace.models.families import FAMILIES
from tests.parallel import choosing, compiled_steps, masked, sampled, sharded_families, sharded_kernels


def check():
    """Raises AssertionError for what is not as it should be."""
    choosing.check()
    compiled_steps.check()
    sharded_kernels.check()
    masked.check()
    sampled.check()
    for family in {*FAMILIES} - {"gemma3"}:  # the decoder of gemma3_text
        sharded_families.check(family)
