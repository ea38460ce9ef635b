from tests.engine.conftest import generated  # noqa: F401 (fixture)
