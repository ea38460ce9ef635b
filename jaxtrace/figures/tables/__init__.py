"""Tables for the terminal: checkpoints, published models, plans, sweeps, stored traces, tuned lenses."""
