"""A study's settings, from its file and the options of its verb."""

import pytest
import yaml

from jaxtrace.cli.study import study_settings
from jaxtrace.errors import ConfigError
from jaxtrace.studies._shared.settings import StudyConfig
from jaxtrace.studies.samplers.settings import SamplersConfig


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"models": ["a"], "seed": 3, "run": {"task": "mmlu", "limit": 9}}))
    return file


def test_options_override_the_file(file):
    settings = study_settings(StudyConfig, file, {}, {"limit": 2})
    assert settings == StudyConfig(models=("a",), seed=3, run={"task": "mmlu", "limit": 2})


def test_traces_and_models_replace_each_other(file):
    assert study_settings(StudyConfig, file, {"traces": ["t"]}, {}).models == ()
    file.write_text("traces: [t]")
    assert study_settings(StudyConfig, file, {"models": ["b"]}, {}) == StudyConfig(models=("b",), run={})


def test_options_that_affect_only_runs_are_refused_beside_traces(file):
    with pytest.raises(ConfigError, match="--max-new-tokens affects only runs that the study makes"):
        study_settings(StudyConfig, file, {"traces": ["t"]}, {"max_new_tokens": 3})
    with pytest.raises(ConfigError, match="--draws affects only runs that the study makes"):
        study_settings(SamplersConfig, None, {"traces": ["t"], "seeds": ["1"]}, {})
    file.write_text("traces: [t]")
    with pytest.raises(ConfigError, match="--limit affects only runs that the study makes"):
        study_settings(StudyConfig, file, {}, {"limit": 3})
    assert study_settings(StudyConfig, file, {"models": ["b"]}, {"limit": 3}).run == {"limit": 3}


def test_an_unknown_field_is_named_with_its_file(file):
    file.write_text("tau: 3")
    with pytest.raises(ConfigError, match=r"study\.yaml: tau: no such setting; there are: traces, models, run, seed"):
        study_settings(StudyConfig, file, {}, {})
