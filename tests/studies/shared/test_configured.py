"""A study's settings, from its file and the options of its verb."""

import pytest
import yaml

from jaxtrace.cli.study.common import configured
from jaxtrace.errors import ConfigError
from jaxtrace.studies._shared.settings import StudyConfig


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"models": ["a"], "seed": 3, "run": {"task": "mmlu", "limit": 9}}))
    return file


def test_options_override_the_file(file):
    settings = configured(StudyConfig, file, {"limit": 2, "seed": None, "out": "elsewhere"})
    assert settings == StudyConfig(models=("a",), seed=3, run={"task": "mmlu", "limit": 2})


def test_traces_and_models_replace_each_other(file):
    assert configured(StudyConfig, file, {"traces": ["t"]}).models == ()
    file.write_text("traces: [t]")
    assert configured(StudyConfig, file, {"models": ["b"]}) == StudyConfig(models=("b",), run={})


def test_what_runs_alone_can_be_told(file):
    with pytest.raises(ConfigError, match="--max-new-tokens is of runs that are to be made"):
        configured(StudyConfig, file, {"traces": ["t"], "max_new_tokens": 3})
    file.write_text("traces: [t]")
    with pytest.raises(ConfigError, match="--limit is of runs that are to be made"):
        configured(StudyConfig, file, {"limit": 3})
    assert configured(StudyConfig, file, {"limit": 3, "models": ["b"]}).run == {"limit": 3}
    file.write_text("tau: 3")
    with pytest.raises(ConfigError, match=r"study\.yaml: tau: no such setting; there are: traces, models, run, seed"):
        configured(StudyConfig, file, {})
