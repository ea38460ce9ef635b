"""The numbers of `jaxtrace trace`, as a user of transformers computes them: batches, every metric, and Parquet.

python -m benchmarks.end_to_end_torch BEGAN MODEL QUESTIONS.json NEW BATCH OUT.parquet prints its spans as JSON. The
file has a row for each token, with lists over layers and heads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.end_to_end_spans import Spans


def main(began: float, model_path: Path, questions: Path, new: int, batch: int, out: Path) -> None:
    """Trace the questions, and print the spans."""
    spans = Spans(began)
    from transformers import AutoTokenizer

    from benchmarks import torch_plain, torch_traced

    tokenizer: Any = AutoTokenizer.from_pretrained(model_path)
    model = torch_plain.load(model_path)
    spans.add("start-up", began)
    spans.wrap(torch_traced, "generate", "decode")
    spans.wrap(model.model, "forward", "model")
    with spans.of("tokenising"):
        texts = json.loads(questions.read_text())
        chats = [[{"role": "user", "content": text}] for text in texts]
        template = tokenizer.apply_chat_template if tokenizer.chat_template else None
        encoded = template(chats, add_generation_prompt=True, return_dict=True) if template else tokenizer(texts)
        prompts = encoded["input_ids"]
    stops = np.atleast_1d(model.generation_config.eos_token_id).tolist()
    writer = None
    for first in range(0, len(prompts), batch):
        group = prompts[first : first + batch]
        metrics = torch_traced.generate(model, group, new, stops)
        with spans.of("draining"):
            rows = [_row(metrics, i, stops) for i in range(len(group))]
            table = pa.concat_tables([_table(row, first + i, tokenizer) for i, row in enumerate(rows)])
        with spans.of("writing"):
            writer = writer or pq.ParquetWriter(out, table.schema, compression="zstd")
            writer.write_table(table)
    if writer is not None:
        with spans.of("writing"):
            writer.close()
    spans.print_json()


def read(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """Return {number of the prompt: its metrics [steps, values]} of a written file."""
    table = pq.read_table(path)
    prompts = table["prompt"].to_numpy()
    columns = {
        name: _array(table[name].combine_chunks()) for name in table.column_names if name not in ("prompt", "text")
    }
    return {int(n): {name: x[prompts == n] for name, x in columns.items()} for n in np.unique(prompts)}


def _row(metrics: dict[str, np.ndarray], row: int, stops: list[int]) -> dict[str, np.ndarray]:
    """Return a row's metrics up to its first stop token."""
    ends = np.flatnonzero(np.isin(metrics["token"][row], stops))
    return {name: x[row, : ends[0] + 1 if len(ends) else None] for name, x in metrics.items()}


def _table(row: dict[str, np.ndarray], number: int, tokenizer: Any) -> pa.Table:
    steps = len(row["token"])
    columns = {"prompt": pa.array(np.full(steps, number)), "text": tokenizer.convert_ids_to_tokens(row["token"])}
    for name, x in row.items():
        flat = pa.array(np.ascontiguousarray(x).reshape(-1))
        columns[name] = flat if x.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, x[0].size)
    return pa.table(columns)


def _array(column: Any) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return column.to_numpy(zero_copy_only=False)


if __name__ == "__main__":
    began, model, questions, new, batch, out = sys.argv[1:]
    main(float(began), Path(model), Path(questions), int(new), int(batch), Path(out))
