"""Watch a run: TensorBoard events, JAX profiles, memory in use."""
