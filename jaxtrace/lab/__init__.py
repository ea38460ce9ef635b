"""Small models trained here, on a world whose truth is known."""
