"""MLflow's runs and answers where another hand wrote them."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lth_core.errors import TrackingError
from tracking.publish import names
from tracking.publish.client import connect
from tracking.publish.publisher import Publisher
from tracking.publish.runs import find_or_make_run, published_run

pytestmark = pytest.mark.mlflow


def run_with(tags: dict[str, str]) -> Any:
    info = SimpleNamespace(run_id="id", start_time=1, end_time=None, status="RUNNING")
    return SimpleNamespace(info=info, data=SimpleNamespace(params={}, tags=tags))


@pytest.mark.parametrize(
    "said", ["x", "", "12345", "abcde", "abcdef  abcdef", "ABCDEF", "9" * 5000]
)
def test_a_tag_that_is_not_of_digests_of_levels_is_ignored(said: str) -> None:
    assert published_run(run_with({names.LEVELS: "0123ab 45cdef"})).levels == 2
    published = published_run(run_with({names.LEVELS: said, "other": "y"}))
    assert (published.levels, published.tags) == (0, {"other": "y"})


def test_levels_that_an_older_version_published_are_those_of_the_store() -> None:
    """It kept their number alone."""
    published = published_run(run_with({names.LEVELS: "3"}))
    assert published.levels == 3
    assert [published.has(level, "0123ab") for level in (0, 2, 3)] == [True, True, False]


def test_tag_of_verdicts_of_another_hand_does_not_stop_their_publishing() -> None:
    known = f"3 {'0' * 64}"
    assert published_run(run_with({names.COMPARED: known})).tags == {names.COMPARED: known}
    published = published_run(run_with({names.COMPARED: "often enough"}))
    assert published.tags == {}
    Publisher("http://127.0.0.1:9", "0", "0").publish_compared(published, [], [])  # asks nobody


@pytest.mark.parametrize("code", [200, 404, 500])
@pytest.mark.parametrize(
    "said",
    [[], 3, None, {"runs": 3}, {"runs": [3]}, {"runs": [{"info": {"start_time": "x"}}]},
     {"next_page_token": 3}, {"runs": ["\ud800"]},
     {"runs": [{"info": {"status": float("inf")}}]}],
)  # fmt: skip
def test_answer_of_another_shape_is_a_tracking_error(
    said: object, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from requests import Response

    answer = Response()
    answer.status_code, answer._content = code, json.dumps(said).encode()
    monkeypatch.setattr("mlflow.utils.rest_utils.http_request", lambda *_, **__: answer)
    with (
        pytest.raises(TrackingError, match="does not answer as MLflow should"),
        connect("http://localhost:1") as client,
    ):
        client.search_runs(["1"])


def test_a_run_that_is_not_found_after_it_was_made_is_an_error() -> None:
    class Forgetful:
        def search_runs(self, *_: object, **__: object) -> Any:
            return type("Page", (list,), {"token": ""})()

        def create_run(self, *_: object, **__: object) -> None: ...

    with pytest.raises(TrackingError, match=r"the run with lth\.study a was made but is not found"):
        find_or_make_run(cast("Any", Forgetful()), "1", names.STUDY, "a", {})
