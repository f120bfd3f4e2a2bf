"""What is said when Ray does not start, or runs already: the cause, and not the machine."""

import logging

import pytest
import ray

from ablate.errors import AblateError, BadInput
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import Resources


def told(monkeypatch, error):
    """The error of a study whose `ray.init` raises another."""

    def init(**options):
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(AblateError) as raised, ray_cluster.connected(Resources()):
        pass
    return raised.value


def test_a_home_that_cannot_be_written_is_named(monkeypatch):
    monkeypatch.setenv("HOME", "/proc")
    error = told(monkeypatch, FileNotFoundError(2, "No such file or directory", "/proc/.ray"))
    assert isinstance(error, BadInput) and str(error).startswith("HOME must be a folder that can be written")
    assert "/proc/.ray" in str(error) and "free" not in str(error)
    error = told(monkeypatch, OSError(28, "No space left on device", "/tmp/ray/session"))
    assert not isinstance(error, BadInput) and "MB are free" in str(error)


@pytest.mark.long
def test_a_ray_of_this_process_is_used_and_another_address_is_refused(caplog):
    caplog.set_level(logging.INFO)
    with ray_cluster.connected(Resources(concurrency=1)) as (_, first):
        here = ray.get_runtime_context().gcs_address
        for address in (None, "auto", here):
            with ray_cluster.connected(Resources(concurrency=1, address=address)) as (_, second):
                assert second.concurrency == first.concurrency
            assert ray.is_initialized()
        with (
            pytest.raises(BadInput, match=f"must be the Ray that this process is connected to, {here}"),
            ray_cluster.connected(Resources(address="10.0.0.1:6379")),
        ):
            pass
