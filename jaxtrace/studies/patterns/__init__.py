"""Patterns: attention entropy of answers under different conditions (after keell0renz/llm-entropy-patterns)."""
