"""The token that stands for a thought."""

from __future__ import annotations

from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import ConfigError

PAUSE = " ..."  # entropix's: token 2564 of Llama 3


def pause_token(tokenizer: Tokenizer | None, text: str | None = None) -> int | None:
    """The id of a pause token.

    Args:
      tokenizer: of the model; there is no pause without one.
      text: that of a token, or an id in digits; None for " ..." where that is one token, else no pause.

    Raises:
      ConfigError: the text is no token of the tokenizer, or there is no tokenizer.
    """
    if text is not None and text.isdecimal():
        return int(text)
    if tokenizer is None:
        if text is None:
            return None
        raise ConfigError(f"pause {text!r}: the model has no tokenizer; give the token's id")
    ids = tokenizer.hf.encode(PAUSE if text is None else text, add_special_tokens=False)
    if len(ids) == 1:
        return ids[0]
    if text is None:
        return None
    raise ConfigError(f"pause {text!r} is {len(ids)} tokens of this model, not one; give another text, or an id")
