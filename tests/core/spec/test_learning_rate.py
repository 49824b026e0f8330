import pytest

from lth_core.spec import TrainSpec
from lth_core.spec.learning_rate import learning_rate


def rates(steps: list[int], **fields: object) -> list[float]:
    spec = TrainSpec(lr=0.1, steps=100, **fields)
    return [learning_rate(spec, step) for step in steps]


@pytest.mark.parametrize(
    ("fields", "steps", "expected"),
    [
        ({}, [0, 50, 99], [0.1, 0.1, 0.1]),
        (
            {"schedule": "multistep", "milestones": (40, 80)},
            [0, 39, 40, 79, 80, 99],
            [0.1, 0.1, 0.01, 0.01, 0.001, 0.001],
        ),
        ({"schedule": "multistep", "milestones": (40,), "gamma": 0.5}, [39, 40], [0.1, 0.05]),
        ({"schedule": "cosine"}, [0, 25, 50, 75, 100], [0.1, 0.0853553, 0.05, 0.0146447, 0.0]),
        ({"warmup": 4}, [0, 1, 2, 3, 4, 99], [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]),
        (
            {"schedule": "cosine", "warmup": 20},
            [0, 9, 19, 20, 60, 100],
            [0.005, 0.05, 0.1, 0.1, 0.05, 0.0],
        ),
        (
            {"schedule": "multistep", "milestones": (40,), "warmup": 10},
            [4, 9, 10, 39, 40],
            [0.05, 0.1, 0.1, 0.1, 0.01],
        ),
    ],
)
def test_rates_are_those_calculated_by_hand(
    fields: dict[str, object], steps: list[int], expected: list[float]
) -> None:
    assert rates(steps, **fields) == pytest.approx(expected, abs=1e-7)
