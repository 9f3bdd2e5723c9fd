"""Without its extra, an integration says what to install, as an ImportError and as a ConfigurationError."""

import importlib
import sys

import pytest

import jobqueue
from jobqueue.errors import ConfigurationError


@pytest.mark.parametrize(
    ("extra", "brings", "needs"),
    [
        ("opentelemetry", "opentelemetry", "jobqueue.opentelemetry needs"),
        ("prometheus", "prometheus_client", "metrics for Prometheus need"),
        ("sentry", "sentry_sdk", "jobqueue.sentry needs"),
    ],
)
def test_a_module_whose_extra_is_missing_names_it(
    extra: str, brings: str, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"jobqueue.{extra}"
    importlib.import_module(module)
    monkeypatch.setitem(sys.modules, brings, None)
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(jobqueue, extra)
    with pytest.raises(ModuleNotFoundError) as error:
        importlib.import_module(module)
    assert str(error.value) == f"{needs} the extra `{extra}`: pip install 'jobqueue[{extra}]'"
    assert isinstance(error.value, ConfigurationError)
    assert (error.value.name, error.value.field) == (brings, extra)
