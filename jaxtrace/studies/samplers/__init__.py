"""Samplers: how ways of sampling change answers to the same prompts, and what they cost."""
