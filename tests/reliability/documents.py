"""One valid document of every kind that jaxtrace reads, and the function that reads it."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

import jaxtrace as jt
from jaxtrace.checkpoints.chat_template import ChatTemplate
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.images import ImageProcessor
from jaxtrace.cli.study import study_settings
from jaxtrace.documents import read_text
from jaxtrace.engine.translators import Translators
from jaxtrace.engine.tuned_lens import LensCard, write_lens
from jaxtrace.errors import StudyError
from jaxtrace.grading.chat import Chat
from jaxtrace.grading.judge import Verdict
from jaxtrace.grading.labels import label_of, read_labels, write_labels
from jaxtrace.lab.settings import LAB_WORLD
from jaxtrace.lab.tasks import read_settings
from jaxtrace.model import open_model_checkpoint
from jaxtrace.settings.run import run_config
from jaxtrace.studies.confidence import files as confidence_files
from jaxtrace.studies.confidence.compute import train
from jaxtrace.studies.confidence.features import feature_tables
from jaxtrace.studies.confidence.labels import known_labels
from jaxtrace.studies.confidence.settings import ConfidenceConfig
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.sweeping.cells import read_sweep
from jaxtrace.sweeping.manifest import CellRecord, Manifest
from jaxtrace.tasks import load_task, multiple_choice
from jaxtrace.traces import TraceWriter
from jaxtrace.traces.location import Location
from jaxtrace.traces.run_json import partition_of
from jaxtrace.training.loop import load_state, save_state
from tests import goldens
from tests.checkpoints.conftest import CONFIG, Folder
from tests.checkpoints.test_images import HUB_CONFIG, VISION
from tests.grading.server import serving
from tests.studies.confidence.traces import answers
from tests.traces.rows import INFO, make_row

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\n"
    "<|user|>{{ message['content'] | trim }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Document:
    """A file of a folder, and how it is read.

    Attributes:
      file: path of the file that a test damages.
      read: function that reads it as a user's command would; it raises JaxtraceError for what it refuses.
      exact: True if what is read must not change unless the file is refused: a stored trace.
    """

    file: Path
    read: Callable[[], object]
    exact: bool = False

    @property
    def is_json(self) -> bool:
        """True if the file holds JSON or lines of JSON."""
        return self.file.suffix in (".json", ".jsonl")


def checkpoints(root):
    """Yield documents of a checkpoint: settings, weights in one file and in several, tokenizer, template."""
    root.mkdir()
    whole = Folder(root / "whole", CONFIG)
    whole.write()
    (whole.path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3], "temperature": 0.7}))
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        yield Document(whole.path / name, lambda: len(jax.tree.leaves(jt.load(str(whole.path)).params)))
    sharded = Folder(root / "sharded", CONFIG)
    sharded.write_sharded()
    for name in ("model.safetensors.index.json", "one.safetensors"):
        yield Document(sharded.path / name, lambda: len(jax.tree.leaves(jt.load(str(sharded.path)).params)))

    talking = root / "talking"
    demo = Path(jt.__file__).parent / "checkpoints" / "demo"
    shutil.copytree(demo, talking)
    settings = json.loads((talking / "tokenizer_config.json").read_text()) | {"chat_template": TEMPLATE}
    (talking / "tokenizer_config.json").write_text(json.dumps(settings))

    def encode():
        tokenizer = open_model_checkpoint(str(talking)).tokenizer
        assert tokenizer is not None
        return tokenizer.decode(tokenizer.encode("Question: What is 3 + 5? \x1b[2J <s> \ud7ff", chat=True))

    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        yield Document(talking / name, encode)
    template = root / "template.jinja"
    template.write_text(TEMPLATE)
    messages = [{"role": "user", "content": "Why?"}]

    def render():
        source = ChatTemplate(template.read_bytes().decode("utf-8", "replace"))
        return source.render(messages, {"bos_token": "<s>"}, {}, datetime(2026, 1, 1))

    yield Document(template, render)
    converted = root / "converted"
    convert(open_model_checkpoint(str(whole.path)), converted)
    yield Document(converted / "jaxtrace.json", lambda: open_model_checkpoint(str(converted)).fingerprint())
    for name in ("_METADATA", "manifest.ocdbt"):
        path = converted / "params" / "state" / name
        yield Document(path, lambda: len(jax.tree.leaves(jt.load(str(converted)).params)))
    for name, content in (("preprocessor_config", HUB_CONFIG), ("processor_config", {"image_processor": HUB_CONFIG})):
        (root / name).mkdir()
        (root / name / f"{name}.json").write_text(json.dumps(content))
        yield Document(root / name / f"{name}.json", lambda folder=root / name: ImageProcessor.load(folder, VISION))
    processor = ImageProcessor.of(VISION)
    for kind in ("png", "jpeg", "webp", "gif", "tiff"):
        picture = root / f"picture.{kind}"
        Image.effect_noise((19, 11), 60).save(picture)
        yield Document(picture, lambda picture=picture: processor([[picture]]))


def tasks(root):
    """Yield documents of prompts and of tasks."""
    root.mkdir()
    prompts = [{"prompt": "The sky is", "id": "a", "level": 3}, {"tokens": [5, 0]}, {"text": "b", "answer": ["x"]}]
    prompts += [{"messages": [{"role": "user", "content": "Why?"}], "id": "c"}]
    lines = "\n".join(map(json.dumps, prompts))
    choices = {"question": "Q?", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}}
    truthful = {
        "Type": "Adversarial",
        "Category": "Law",
        "Question": "Why?",
        "Best Answer": "a",
        "Correct Answers": "a; b",
    }
    truthful |= {"Incorrect Answers": "c; d", "Source": "x"}
    simple = {"metadata": "{'topic': 'Art', 'answer_type': 'Person', 'urls': ['https://x.org']}"}
    simple |= {"problem": "Who painted it?", "answer": "Him, surely"}
    gsm = {"question": "A box?", "answer": "1000 + 1 = <<1000+1=1001>>1001\n#### 1,001"}
    creative = {"topic": "tea", "factual": "What is tea?", "creative": "Sing of tea."}
    contents = {
        ("prompts", "a.txt"): "The sky is\nOnce, \n東京",
        ("prompts", "a.jsonl"): lines,
        ("prompts", "a.csv"): 'question,id,answer\n"one, two",x,3\nfour,y,5\n',
        ("truthfulqa", "t.csv"): _csv(truthful),
        ("gsm8k", "g.jsonl"): f"{json.dumps(gsm)}\n{json.dumps(gsm)}\n",
        ("mmlu", "art_test.csv"): "question,choice0,choice1,choice2,choice3,answer\nWhich?,a,b,c,d,1\n",
        ("simpleqa", "s.csv"): _csv(simple),
        ("factual-creative", "f.csv"): _csv(creative),
        ("tinystories", "stories.txt"): "Once upon a time.\n<|endoftext|>\nThe end.",
    }
    (root / "test.jsonl").write_text(json.dumps(gsm))
    for (task, name), content in contents.items():
        (root / name).write_text(content, encoding="utf-8")
        yield Document(root / name, lambda task=task, name=name: len(load_task(task, root / name)))
    (root / "mc_task.json").write_text(json.dumps([choices, choices]))
    yield Document(root / "mc_task.json", lambda: len(multiple_choice.load(str(root / "mc_task.json"))))
    asked = {"question": "Which?", "subject": "art", "choices": ["a", "b", "c", "d"], "answer": 1}
    known = {"type": "x", "category": "Law", "question": "Why?", "best_answer": "a", "correct_answers": ["a", "b"]}
    known |= {"incorrect_answers": ["c"], "source": "x"}
    for task, row in {"gsm8k": gsm, "mmlu": asked, "truthfulqa": known}.items():
        table = root / f"{task}.parquet"
        pq.write_table(pa.Table.from_pylist([row] * 20), table)
        yield Document(table, lambda task=task, table=table: len(load_task(task, table)))
    (root / "train.jsonl").write_text("".join(json.dumps(gsm | {"question": f"{i}?"}) + "\n" for i in range(9)))
    yield Document(root / "train.jsonl", lambda: len(load_task("gsm8k", root / "test.jsonl", shots=2)))


def settings(root):
    """Yield documents of settings, labels, confidences, lenses and worlds."""
    root.mkdir()
    run = {"model": "demo", "task": "prompts", "temperature": 0.7, "sampler": "sample", "probes": "output,lens"}
    (root / "run.yaml").write_text(yaml.safe_dump(run | {"seed": 3, "stop_repeats": 4, "stop": ["\n"], "limit": 8}))
    yield Document(root / "run.yaml", lambda: run_config(root / "run.yaml"))
    sweep = {"models": ["demo", {"model": "demo", "name": "other"}], "tasks": ["truthfulqa"], "seeds": [0, 1]}
    sweep |= {"samplers": [{"temperature": 0.8}, "greedy"], "probes": [["output", "lens"]], "settings": {"limit": 8}}
    (root / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    yield Document(root / "sweep.yaml", lambda: len(read_sweep(root / "sweep.yaml")))
    study = {"traces": ["run"], "by": "task", "seed": 3, "run": {"limit": 8}}
    (root / "study.yaml").write_text(yaml.safe_dump(study))
    yield Document(root / "study.yaml", lambda: study_settings(PatternsConfig, root / "study.yaml", {}, {}))
    (root / "world.json").write_text(LAB_WORLD.model_dump_json())
    yield Document(root / "world.json", lambda: read_settings(root / "world.json"))

    answered = answers(np.random.default_rng(0), 40)
    write_labels([label_of(row) for row in answered.rows], root / "labels.jsonl")
    yield Document(root / "labels.jsonl", lambda: len(read_labels(root / "labels.jsonl")))
    known = root / "known.csv"
    known.write_text("prompt,label\n" + "".join(f"q{i},{str(i % 2 == 0).lower()}\n" for i in range(40)))
    confidence, _ = train({"made": answered}, known, ConfidenceConfig(folds=2, resamples=10))
    confidence_files.save(confidence, root / "confidence", {"traces": ["made"]})

    def apply():
        scores, _ = confidence_files.load(root / "confidence").apply(answered)
        assert scores["confidence"].between(0, 1).all()

    for path in files_of(root / "confidence"):
        yield Document(path, apply)
    tables = feature_tables({"made": answered})
    yield Document(known, lambda: known_labels(tables, known))

    demo = jt.load("demo")
    layers, width = demo.config.num_layers, demo.config.embed_dim
    fields = {"model": "demo", "checkpoint": demo.fingerprint(), "layers": layers, "embed": width, "text": "none"}
    fields |= {"tokens": 0, "recipe": {}, "held_out": 0, "kl_logit": (), "kl_tuned": ()}
    (root / "lens").mkdir()
    write_lens(root / "lens", Translators.zeros(demo.config), LensCard(**fields))
    for path in files_of(root / "lens"):
        yield Document(path, lambda: demo.with_lens(str(root / "lens")))
    state, state_file = ({"w": np.ones((3, 2), np.float32)}, (np.zeros(2, np.float32),)), root / "training.safetensors"
    save_state(state_file, {"model": "demo"}, 5, state)
    yield Document(state_file, lambda: repr(load_state(state_file, {"model": "demo"}, state)), exact=True)
    (root / "primer.txt").write_text("Question: why?\nAnswer: so.")
    yield Document(root / "primer.txt", lambda: read_text(root / "primer.txt", StudyError, "name a UTF-8 file"))

    def judge(url):
        with Chat(url, "tiny", root / "replies", retries=0) as chat:
            return chat.ask_all("Grade it.", [{"question": "Why?", "answer": "So."}], Verdict)

    with serving(lambda _: '{"grade": "correct"}') as api:
        judge(api.url)
    for path in files_of(root / "replies"):
        yield Document(path, lambda: judge(api.url))  # a damaged reply is asked for again: the server has ended


def traces(root):
    """Yield the files of a stored run, of one of an earlier version, of a dataset, and of a sweep's record."""
    run = root / "run"
    with TraceWriter(run, INFO, {"model": "tiny", "limit": None}) as writer:
        for start in (0, 2):
            writer.write([(start, make_row(start, 3)), (start + 1, make_row(start + 1, 2))])
    for path in files_of(run):
        yield Document(path, lambda: read_everything(run), exact=True)
    old = shutil.copytree(Path(goldens.__file__).parent / "format_1", root / "old")
    for path in files_of(old):
        yield Document(path, lambda: read_everything(old))  # it has no checksums
    dataset = root / "dataset"
    for model in "ab":
        partition = partition_of(model=model, task="quiz")
        with TraceWriter(dataset, INFO, {"model": model}, partition=partition) as writer:
            writer.write([(0, make_row(0, 3))])
    for path in files_of(dataset):
        yield Document(path, lambda: read_everything(dataset), exact=True)
    record = root / "sweep"
    manifest = Manifest(Location.of(record))
    manifest.records = {"model=a/task=b/run=c": CellRecord("complete", "00", 3, 9, 12.5)}
    manifest.write()
    yield Document(record / "sweep.json", lambda: Manifest(Location.of(record)).records)


def files_of(folder):
    """Return the paths of the files below a directory, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_everything(run):
    """Return the bytes of all that a stored run holds, by every way of reading it."""
    trace = jt.open(run)
    rows = [
        (
            *(repr(row.prompt), row.prompt_tokens.tobytes(), row.prompt_pieces, row.pieces, row.text, row.stop),
            *((name, values.dtype.str, values.shape, values.tobytes()) for name, values in row.metrics.items()),
        )
        for row in trace.rows
    ]
    data = trace.to_xarray()
    arrays = {name: (array.dims, array.shape, array.to_numpy().tobytes()) for name, array in data.data_vars.items()}
    tables = [getattr(trace, name).to_table() for name in ("tokens", "layers", "prompts")]
    described = [(table.schema.names, repr(table.to_pydict())) for table in tables]
    return repr(rows), repr(arrays), repr(described), repr(sorted(trace.info.items())), trace.lengths, trace.texts


def _csv(row):
    text = io.StringIO()
    writer = csv.DictWriter(text, row)
    writer.writeheader()
    writer.writerow(row)
    writer.writerow(row)
    return text.getvalue()
