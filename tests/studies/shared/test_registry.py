"""Every study registers its settings and its function."""

from importlib import import_module
from pathlib import Path

import pytest

import jaxtrace.studies
from jaxtrace.documents import read_yaml
from jaxtrace.errors import StudyError
from jaxtrace.settings.validation import validated
from jaxtrace.studies._shared.traces import model_run_config
from jaxtrace.studies.lens.profiles import parse_metric
from jaxtrace.studies.registry import known_studies

STUDIES = known_studies()
CONFIGS = Path(__file__).parents[3] / "configs" / "studies"
PROBES = {"patterns": ("attention", "output"), "lens": ("lens",), "dynamics": ("output", "attention", "hidden")}


def test_every_folder_with_settings_is_registered():
    (folder,) = jaxtrace.studies.__path__
    folders = {file.parent.name for file in Path(folder).glob("[a-z]*/settings.py")} - {"confidence"}
    assert folders == STUDIES.keys()


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_fields_are_described_and_the_function_exists(study):
    assert all(field.description for field in study.settings.model_fields.values())
    assert callable(import_module(f"jaxtrace.studies.{study.name}.compute").run_study)
    assert study.example.startswith(f"jaxtrace study {study.name} ")


@pytest.mark.parametrize("name", ["expansion", "interventions"])
def test_studies_that_run_models_refuse_traces(name, tmp_path):
    study = STUDIES[name]
    with pytest.raises(StudyError, match="this study runs models itself"):
        study.execute(study.settings(traces=("x",)), tmp_path)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_settings_are_valid(file, tmp_path):
    name = file.stem.split("-")[0]
    config = validated(STUDIES[name].settings, read_yaml(file), str(file))
    runs = [model_run_config(config, model, tmp_path) for model in config.models]
    assert all(run.prompts is None or run.prompts.exists() for run in runs)
    assert all({*PROBES.get(name, ())} <= {*run.probes} for run in runs)
    if name == "lens":
        assert all(parse_metric(metric)[1] in (None, *run.alphas) for run in runs for metric in config.metric)
    assert name != "patterns" or all(run.max_new_tokens == 1024 for run in runs)
    if file.stem == "dynamics":  # the published protocol
        assert all((run.max_new_tokens, run.stop_repeats, run.sampler) == (1000, 15, "greedy") for run in runs)
        assert (len(runs), config.tau, config.share, config.hdi) == (4, 0.30, 0.2, "std")
