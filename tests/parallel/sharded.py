"""Checks on eight devices that need no file, in one process."""

from tests.parallel import choosing, compiled_steps, masked, sampled, sharded_families, sharded_hybrid, sharded_kernels

# Soft caps and norms around blocks; shared keys and layer inputs; biases, parallel; images; norms over all heads.
FAMILIES = ("gemma2", "gemma4_text", "gpt_neox", "mllama", "olmo2")

# Half of the rows are longer than the original context.
LONG = {"rope_type": "longrope", "short_factor": [1, 1, 2, 2], "long_factor": [2, 4, 8, 8]}
LONG["original_max_position_embeddings"] = sharded_families.TOKENS + 1


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
    sharded_families.check("llama", rope_parameters=LONG)
