from pathlib import Path

import pytest

from lth_core.errors import TrackingError
from tracking.server import ui_command


def test_the_ui_is_served_to_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    command = ui_command("sqlite:///mlflow.db", 5123)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5123"
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (None, "nothing was tracked"),
        ("http://127.0.0.1:1", "open that address in a browser"),
        ("sqlite:///nowhere.db", "nowhere.db does not exist yet"),
    ],
)
def test_what_cannot_be_served_is_said(
    uri: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match=words):
        ui_command(uri, 5000)
