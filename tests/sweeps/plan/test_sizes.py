"""Sizes of networks: nobody takes the weights that are counted for the whole network."""

from tiny import StudyOf

from sweeps.plan.plan import make_plan
from sweeps.plan.sizes import network_sizes, size_lines


def test_weights_and_what_lies_beside_them_are_named(tiny: StudyOf) -> None:
    plan = make_plan(tiny({"base.model": {"name": "vit-tiny", "width": 0.25}}))
    (size,) = network_sizes(plan)
    assert size.parameters == size.prunable + sum(size.others.values())
    # Positions, and of each block two norms, the biases of attention and of two linear layers.
    assert size.others == {"biases and norms": 16 + 4 * (64 + 48 + 16 + 32 + 16) + 32 + 10,
                           "positions": 4 * 16}  # fmt: skip
    (line,) = size_lines(plan)
    assert line == (
        f"vit-tiny (width 0.25) on digits: {size.prunable:,} of {size.parameters:,} parameters are "
        "prunable (not: biases and norms 762, positions 64)"
    )


def test_many_networks_are_counted_and_few_named(tiny: StudyOf) -> None:
    plan = make_plan(tiny({"axes.model.width": [0.1, 0.2, 0.3, 0.4, 0.5]}))
    *lines, rest = size_lines(plan)
    assert [line.partition(":")[0] for line in lines] == [
        f"mlp 16 (width {width}) on digits" for width in (0.1, 0.2, 0.3)
    ]
    assert rest == "and 2 more networks"
    assert len({size.parameters for size in network_sizes(plan)}) == 5


def test_networks_of_one_size_are_named_once(tiny: StudyOf) -> None:
    data = {"axes.data.validation": [0, 0.1], "axes.data.fraction": [0.5, 1.0]}
    plan = make_plan(tiny({**data, "axes.model.width": [0.5, 1.0]}))
    assert [line.partition(":")[0] for line in size_lines(plan)] == [
        "mlp 16 (width 0.5) on digits", "mlp 16 on digits"
    ]  # fmt: skip
