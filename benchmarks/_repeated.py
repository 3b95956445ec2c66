"""A pytest plugin: `-p benchmarks._repeated --times N` runs every test N times in one process."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=1, help="how often each test is run")


@pytest.fixture
def time_of_test(request: pytest.FixtureRequest) -> int:
    return request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    times = metafunc.config.getoption("times")
    if times > 1:
        metafunc.fixturenames.append("time_of_test")
        metafunc.parametrize("time_of_test", range(times), indirect=True, ids=[f"time{n}" for n in range(times)])
