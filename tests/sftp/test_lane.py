import random

from ssh_fast.sftp.lane import Lane


def test_order_against_a_model() -> None:
    """Whatever comes and ends in which order: first come first begun, exclusive ones alone, none forgotten."""

    for seed in range(200):
        chance = random.Random(seed)
        lane = Lane()
        begun: list[int] = []
        running: dict[int, bool] = {}

        def begin(number: int, exclusive: bool, at_once: bool) -> None:
            assert not any(running.values()) and (not exclusive or not running)  # noqa: B023
            begun.append(number)  # noqa: B023
            running[number] = exclusive  # noqa: B023

            if at_once:
                del running[number]  # noqa: B023
                lane.leave(exclusive)  # noqa: B023

        for number in range(50):
            exclusive, at_once = chance.random() < 0.4, chance.random() < 0.3
            lane.enter(exclusive, lambda number=number, e=exclusive, a=at_once: begin(number, e, a))  # type: ignore[misc]

            while running and chance.random() < 0.5:
                lane.leave(running.pop(chance.choice(list(running))))

        while running:
            lane.leave(running.pop(chance.choice(list(running))))

        assert begun == list(range(50))


def test_many_that_end_at_once() -> None:
    lane = Lane()
    done = []
    lane.enter(True, lambda: None)

    for number in range(5000):
        lane.enter(True, lambda number=number: (done.append(number), lane.leave(True)))  # type: ignore[misc]

    assert not done
    lane.leave(True)
    assert done == list(range(5000))
