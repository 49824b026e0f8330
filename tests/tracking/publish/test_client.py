"""A server that says nothing is given up soon; one that is slow is not."""

import contextlib
import socket
import threading

import pytest

from lth_core.errors import TrackingError
from tracking.publish.client import DEFAULTS, connect


@pytest.mark.mlflow
def test_a_silent_server_is_an_error_well_before_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = int(DEFAULTS["MLFLOW_HTTP_REQUEST_TIMEOUT"])
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    came: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    came.append(server.accept()[0])

        threading.Thread(target=serve, daemon=True).start()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TrackingError, match="does not answer"), connect(uri) as client:
            client.get_experiment_by_name("study")
        tries = len(came)
        for each in came:
            each.close()
    assert tries * seconds <= 20
    assert seconds >= 8, "5 s a call, and what the machine adds, is only slow"
