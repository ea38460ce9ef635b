"""TinyStories, with and without its markers."""

from pathlib import Path

import pytest

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.tinystories import load

DATA = Path(__file__).parents[3] / "shared" / "data" / "tinystories"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the TinyStories texts are missing")


def texts(path, limit=None, words=None):
    return [prompt.text for prompt in load(path, limit, words)]


def test_a_file_with_markers_is_split_only_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("One.\n\nTwo.\n<|endoftext|>\nThree. <|endoftext|>Four.<|endoftext|>\n\n<|endoftext|>\n")
    assert texts(path) == ["One.\n\nTwo.", "Three.", "Four."]


def test_a_file_without_markers_is_split_at_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"of a cut story.\n\n\nOnce\nupon.\r\n \r\nThe end")
    assert texts(path) == ["of a cut story.", "Once\nupon.", "The end"]


def test_first_words_keep_their_spacing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("One  two\nthree four.\n\nShort one.\n")
    assert texts(path, words=3) == ["One  two\nthree", "Short one."]
    assert load(path, 1, 1) == [Prompt("One", id="tinystories-000000", meta={"file": "a.txt", "words": 4})]


def test_a_directory_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b.txt").write_text("Second.")
    (tmp_path / "a.txt").write_text("First.<|endoftext|>")
    (tmp_path / "c.md").write_text("Not read.")
    assert texts(tmp_path) == ["First.", "Second."]


def test_unusable_files_and_word_counts_are_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(" \n\n")
    with pytest.raises(PromptError, match="holds no prompt"):
        load(path, None)
    with pytest.raises(PromptError, match="prompt of 0 words"):
        load(path, None, words=0)
    path.write_bytes(b"One.\n\n\xff")
    with pytest.raises(PromptError, match=r"a\.txt, line 3: not UTF-8"):
        load(path, None)


@needs_data
def test_the_published_training_text():
    prompts = load(DATA / "tinystories_train_head.txt", None)
    assert len(prompts) == 4948
    assert prompts[0].text.startswith("One day, a little girl named Lily found a needle")
    assert max(len(prompt.text.split()) for prompt in prompts) == 20


@needs_data
def test_the_published_validation_text():
    whole = texts(DATA / "tinystories_val_head.txt")
    assert whole[0].startswith("Spot. Spot saw the shiny car")
    original = (DATA / "tinystories_val_head.txt").read_text(encoding="utf-8")
    assert "".join("".join(whole).split()) == "".join(original.split())
