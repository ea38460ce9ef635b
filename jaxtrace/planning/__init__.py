"""Plans: cost of a trace, and memory and speed of a run on accelerators that need not exist here."""
