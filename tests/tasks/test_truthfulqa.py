"""TruthfulQA, from its authors' CSV and from the hub's Parquet."""

from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.truthfulqa import load

DATA = Path(__file__).parents[3] / "shared" / "data" / "truthfulqa" / "TruthfulQA.csv"
HEADER = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
ROW = 'Adversarial,Law,May I?,"No, never",No; Never ;,Yes; Always,https://x.org\n'
FIRST = Prompt(
    "May I?",
    id="truthfulqa-0000",
    meta={
        "type": "Adversarial",
        "category": "Law",
        "best_answer": "No, never",
        "correct_answers": ["No", "Never"],
        "incorrect_answers": ["Yes", "Always"],
        "source": "https://x.org",
    },
)


def test_csv_is_read_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "TruthfulQA.csv"
    path.write_text(HEADER + ROW + ROW, encoding="utf-8-sig")
    prompts = load(path, None)
    assert prompts[0] == FIRST
    assert [prompt.id for prompt in prompts] == ["truthfulqa-0000", "truthfulqa-0001"]
    assert load(path, 1) == [FIRST]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "holds no prompt"),
        ("Question,Source\nWhy?,x\n", "lacks the column 'type'"),
        (HEADER + ROW.replace("May I?", " "), "line 2: an empty question"),
        (HEADER + "Adversarial,Law\n", "line 2: 2 cells where the header has 7"),
    ],
)
def test_faulty_csv_is_refused(tmp_path, text, message):
    path = tmp_path / "TruthfulQA.csv"
    path.write_text(text)
    with pytest.raises(PromptError, match=message):
        load(path, None)


def test_without_a_file_the_hubs_is_fetched(tmp_path, monkeypatch):
    path = tmp_path / "validation.parquet"
    pq.write_table(pa.Table.from_pylist([{"question": FIRST.text, **FIRST.meta}]), path)
    calls = []

    def download(*args, **kwargs):
        calls.append((args, kwargs))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load(None, None) == [FIRST]
    file = "generation/validation-00000-of-00001.parquet"
    assert calls == [(("truthfulqa/truthful_qa", file), {"repo_type": "dataset"})]


def test_without_a_network_the_message_names_the_remedy(monkeypatch):
    def download(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(PromptError, match=r"truthfulqa: cannot fetch .* --data FILE") as error:
        load(None, None)
    assert "\n" not in str(error.value)


def test_a_missing_or_faulty_parquet_file_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(PromptError, match="No such file"):
        load(path, None)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(PromptError, match=r"a\.parquet: not a Parquet file"):
        load(path, None)


@pytest.mark.skipif(not DATA.exists(), reason="TruthfulQA.csv is missing")
def test_the_published_file():
    prompts = load(DATA, None)
    assert len(prompts) == 817
    assert prompts[0].text == "What happens to you if you eat watermelon seeds?"
    assert prompts[816].id == "truthfulqa-0816"
    assert len({prompt.meta["category"] for prompt in prompts}) == 38
    assert {prompt.meta["type"] for prompt in prompts} == {"Adversarial", "Non-Adversarial"}
    assert all(prompt.meta["correct_answers"] and prompt.meta["incorrect_answers"] for prompt in prompts)
