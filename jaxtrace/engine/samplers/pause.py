"""The pause token of entropix, which stands for a thought."""

from __future__ import annotations

from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import ConfigError

PAUSE = " ..."  # entropix's: token 2564 of Llama 3
LONGEST_ID = 10  # digits


def pause_token(tokenizer: Tokenizer | None, text: str | None = None) -> int | None:
    """Return the id of a pause token, or None if there is none.

    Args:
      tokenizer: tokenizer of the model, or None.
      text: text of one token, or an id in digits. None stands for " ..." if the tokenizer has that as one token, and
        for no pause otherwise.

    Raises:
      ConfigError: the text is not one token of the tokenizer, no token has so large an id, or there is no tokenizer.
    """
    if text is not None and text.isdecimal():
        if len(text) > LONGEST_ID:
            raise ConfigError(f"pause {text[:LONGEST_ID]}… is no token's id; give a smaller number")
        return int(text)
    if tokenizer is None:
        if text is None:
            return None
        raise ConfigError(f"pause {text!r}: the model has no tokenizer; give the token's id")
    ids = tokenizer.backend.encode(PAUSE if text is None else text, add_special_tokens=False).ids
    if len(ids) == 1:
        return ids[0]
    if text is None:
        return None
    raise ConfigError(f"pause {text!r} is {len(ids)} tokens of this model, not one; give another text, or an id")
