from tests.tracing.conftest import model, prompts  # noqa: F401 (fixtures)
