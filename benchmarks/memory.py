"""Memory of tracing one long text: peak of the process, against the size of its attention weights.

python -m benchmarks.memory --shape llama-3.2-1b --tokens 8192
"""

from __future__ import annotations

import time

import jaxtrace as jt
from benchmarks.machine import this_machine
from benchmarks.options import NO_LENS, add_model, benchmark_parser
from benchmarks.shapes import SHAPES, checkpoint, parameter_bytes, random_tokens
from benchmarks.table import BenchmarkTable
from benchmarks.timing import say
from jaxtrace.observing.memory import peak_resident_bytes

MIB, GIB = 2**20, 2**30


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    add_model(parser, "llama-3.2-1b")
    parser.add_argument("--tokens", type=int, default=8192, help="length of the text")
    parser.add_argument("--no-lens", action="store_true", help="exclude the lens, which is most of the arithmetic")
    args = parser.parse_args()
    directory = checkpoint(args.shape, args.workdir)
    config = SHAPES[args.shape]
    groups = NO_LENS if args.no_lens else ("all",)
    say("loading")
    model = jt.load(str(directory))
    loaded = peak_resident_bytes()
    (text,) = random_tokens(args.shape, 1, args.tokens)
    began = time.perf_counter()

    scored = 0

    def progress(_: int, tokens: int, __: float) -> None:
        nonlocal scored
        scored += tokens
        say(f"{scored} tokens scored after {time.perf_counter() - began:.0f} s")

    trace = model.score([text], probes=jt.Probes.of(*groups), on_progress=progress)
    seconds, peak = time.perf_counter() - began, peak_resident_bytes()
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    attentions = layers * heads * args.tokens**2 * 4
    logits = layers * args.tokens * config["vocab_size"] * 4
    rows = [
        ("weights, float32 (computed)", f"{parameter_bytes(args.shape) / GIB:.2f} GiB"),
        ("peak resident memory after loading", f"{loaded / GIB:.2f} GiB"),
        ("peak resident memory after scoring", f"{peak / GIB:.2f} GiB"),
        ("attention weights of output_attentions=True (computed)", f"{attentions / GIB:.2f} GiB"),
        ("the same, times our peak", f"{attentions / peak:.1f}×"),
        ("logits of all lenses held at once (computed)", f"{logits / GIB:.2f} GiB"),
        ("the trace itself", f"{sum(x.nbytes for x in trace.rows[0].metrics.values()) / 2**20:.1f} MiB"),
        ("seconds, compilation included", f"{seconds:.0f}"),
        ("tokens/s", f"{args.tokens / seconds:.1f}"),
    ]
    BenchmarkTable(
        title=f"Memory, {args.shape}: one text of {args.tokens} tokens, probes {', '.join(groups)}",
        columns=("quantity", "value"),
        rows=rows,
        above=(this_machine().line,),
        below=("Resident memory is the process's (getrusage), with the pages of the mapped checkpoint file.",),
    ).publish(args.out)


if __name__ == "__main__":
    main()
