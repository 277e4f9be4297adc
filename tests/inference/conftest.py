import bright
import pytest


@pytest.fixture
def bright_network(monkeypatch) -> None:
    """The network "bright" can be built by name."""
    bright.register(monkeypatch.setattr)
