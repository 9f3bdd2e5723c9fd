from processes import scene  # noqa: F401 - a fixture
