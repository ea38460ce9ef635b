"""GSM8K, from its authors' JSON lines and from the hub's Parquet."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrace.errors import PromptError
from jaxtrace.tasks import Prompt, load_task

DATA = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "test.jsonl"
ROW = {"question": "A box of 1,000 and one more?", "answer": "1000 + 1 = <<1000+1=1001>>1001\n#### 1,001"}
FIRST = Prompt(
    "A box of 1,000 and one more?",
    id="gsm8k-0000",
    meta={"answer": "1001", "solution": "1000 + 1 = <<1000+1=1001>>1001"},
)


def test_json_lines_and_parquet_give_the_same_prompts(tmp_path):
    lines, parquet = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    lines.write_text(json.dumps(ROW) + "\n")
    pq.write_table(pa.Table.from_pylist([ROW]), parquet)
    assert load_task("gsm8k", lines) == load_task("gsm8k", parquet) == [FIRST]


@pytest.mark.parametrize("row", ['"a text"', '{"question": "Why?", "answer": "so"}', '{"answer": "#### 1"}'])
def test_a_row_without_an_answer_is_refused(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + row + "\n")
    with pytest.raises(PromptError, match="row 2: no question with an answer after ####"):
        load_task("gsm8k", path)


@pytest.mark.skipif(not DATA.exists(), reason="GSM8K is missing")
def test_the_published_file():
    prompts = load_task("gsm8k", DATA)
    assert len(prompts) == 1319
    assert prompts[0].meta["answer"] == "18"
    assert all(prompt.meta["answer"].lstrip("-").replace(".", "").isdigit() for prompt in prompts)
