from tests.engine.conftest import generated, model, prompts, scored, stacked  # noqa: F401 (fixtures)
