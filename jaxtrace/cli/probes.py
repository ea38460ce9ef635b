"""Options that say what is recorded, and in how many bytes."""

from __future__ import annotations

from typing import Annotated

from jaxtrace.cli.app import Option

ProbeGroups = Annotated[
    str | None, Option(help="Groups, comma-separated: output, attention, dispersion, lens, hidden, all, none.")
]
LayerStride = Annotated[int | None, Option(help="Metrics of every so many-th layer, the last one among them.")]
Residuals = Annotated[str | None, Option(help="Layers whose residual stream is kept, 0 the embedding: 0,8,16.")]
TopTokens = Annotated[int | None, Option(help="So many of the likeliest next tokens are kept.")]
AttentionRows = Annotated[str | None, Option(help="LAYER:HEAD pairs whose attention weights are kept: 3:0,3:1.")]
PromptPositions = Annotated[
    bool | None, Option("--prompt-positions", help="Measure the positions of prompts before their last, too.")
]
LensRenyi = Annotated[
    bool | None, Option("--lens-renyi", help="Rényi entropies of every layer's prediction, too: a second unembedding.")
]
Precision = Annotated[str | None, Option(help="Of floats on the disk: float32 or float16. Default: float32.")]
