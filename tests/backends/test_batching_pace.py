"""How many tokens of prompts a step takes."""

from ore.backends.local.batching.pace import FIRST, LEAST, Pace


def test_quick_steps_grow_and_slow_ones_shrink() -> None:
    pace = Pace(512)
    assert pace.budget == FIRST
    for _ in range(10):
        pace.learn(pace.budget, 0.01)
    assert pace.budget == 512
    pace.learn(512, 0.8)
    assert pace.budget == 51
    for _ in range(10):
        pace.learn(pace.budget, 5.0)
    assert pace.budget == LEAST


def test_a_step_is_worth_its_reading_of_the_weights() -> None:
    """Where a step without prompts takes 0.3 s already, one with them may take 0.6, and not be cut to nothing."""
    pace = Pace(512)
    for _ in range(20):
        pace.learn(0, 0.3)
    pace.learn(FIRST, 0.5)
    assert pace.budget >= FIRST
    pace.learn(pace.budget, 1.2)
    assert LEAST < pace.budget < FIRST


def test_a_part_that_is_smaller_than_the_budget_does_not_raise_it() -> None:
    pace = Pace(512)
    pace.learn(3, 0.001)
    assert pace.budget == FIRST
