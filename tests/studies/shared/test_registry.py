"""Every study registers its settings and its function."""

from importlib import import_module
from pathlib import Path

import pytest

import jaxtrace.studies
from jaxtrace.errors import StudyError
from jaxtrace.studies.registry import known_studies

STUDIES = known_studies()


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
