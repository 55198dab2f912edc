import os
import subprocess
import sys

import pytest

import halves
import running


def pytest_addoption(parser):
    parser.addoption("--half", type=int, choices=(1, 2), help="only these files (see tests/halves.py)")


def pytest_collection_modifyitems(config, items):
    half = config.getoption("--half")
    if half is not None:
        ours = [each for each in items if (each.path.name in halves.OTHER) == (half == 2)]
        config.hook.pytest_deselected(items=list(set(items) - set(ours)))
        items[:] = ours


@pytest.fixture(scope="session")
def sources():
    """A copy of what is built from, without .git: what a user has who copied the folder.

    All builds of a run start from it, so that an edit made meanwhile does not look like a build that differs.
    """
    with running.short_folder() as base:
        yield running.copy_of_the_sources(running.ROOT, os.path.join(base, "sources"))


@pytest.fixture(scope="session")
def pyz(sources):
    """The path of a freshly built modwsgi-tel.pyz, which every user may read."""
    with running.short_folder() as folder:
        subprocess.run(["bash", os.path.join(sources, "build.sh"), "build", folder], check=True, timeout=300,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       env=dict(running.clean_environment(), PYTHON=sys.executable))
        yield os.path.join(folder, "modwsgi-tel.pyz")


@pytest.fixture
def serve():
    """Starts collectors, `serve("--option", ..., program=...)`, and ends them when the test is over."""
    started = []

    def start(*options, **more):
        started.append(running.Collector(*options, **more))
        return started[-1].start()

    yield start
    for each in reversed(started):
        each.close()
