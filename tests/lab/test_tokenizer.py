"""Texts survive encoding and decoding, here and in transformers."""

from itertools import islice

import pytest
from transformers import AutoTokenizer

from jaxtrace.lab.documents import documents
from jaxtrace.lab.settings import DEMO_WORLD
from jaxtrace.lab.tokenizer import BOS_ID, EOS_ID, PAD_ID, save_tokenizer, train_tokenizer
from jaxtrace.lab.world import World


@pytest.fixture(scope="module")
def texts():
    return list(islice(documents(World(DEMO_WORLD), 1), 500))


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer(texts, vocab_size=512)


@pytest.mark.parametrize("text", ["", "3 + 10 = 13.", "Æther\n naïve 日本", "  two  spaces "])
def test_any_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_each_digit_is_a_token_and_bos_comes_first(tokenizer):
    ids = tokenizer.encode("3 + 10").ids
    assert ids[0] == BOS_ID
    assert tokenizer.encode("3 + 10").tokens[-2:] == ["1", "0"]
    assert BOS_ID not in tokenizer.encode("3 + 10", add_special_tokens=False).ids


def test_transformers_encodes_the_same_ids(tokenizer, texts, tmp_path):
    save_tokenizer(tokenizer, tmp_path, max_length=256)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (PAD_ID, BOS_ID, EOS_ID)
    assert loaded.model_max_length == 256
    for text in texts[:20]:
        ids = loaded(text).input_ids
        assert ids == tokenizer.encode(text).ids
        assert loaded.decode(ids, skip_special_tokens=True) == text
