"""Settings with their help texts, defaults and ranges, each written once; imports no jax, so that `--help` is fast."""
