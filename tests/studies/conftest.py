from tests.engine.conftest import model, prompts  # noqa: F401 (fixtures)
