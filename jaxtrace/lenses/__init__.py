"""What a layer's residual stream says of the next token: tuned lenses, and the tokens a layer holds for candidates."""
