"""Runs all tests in two halves at once: most of them wait for servers, so that one alone leaves the machine idle.

    python tests/halves.py [ARGS...]        ARGS go to both pytests

The first half is shown as it runs, the other one when that is over; the exit status is not 0 unless both are whole.  With the name of a
test, -k, -m, -x or --pdb among ARGS, or on a machine of one core, all runs in one pytest.
"""
import os
import subprocess
import sys
import tempfile

import pytest

# The files of the other half: what starts many servers, and what is slow beside it.  Both halves are to take about as long.
OTHER = frozenset(f"test_{name}.py" for name in ("agent_apache", "agent_servers", "apache", "collector_stacks", "doctor_real", "incidents",
                                                 "processes_command", "stacks_locks", "why_command", "why_gather"))


def is_plain(arguments):
    """Whether these ask for all tests, and no more than that."""
    return all(each.startswith("-") and not each.startswith(("-k", "-m", "-x", "--pdb", "--half", "--last", "--lf", "--ff", "--maxfail", "--exit"))
               for each in arguments)


def both(arguments):
    command = [sys.executable, "-m", "pytest", *arguments]
    with tempfile.TemporaryFile() as log:
        other = subprocess.Popen([*command, "--half", "2"], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            statuses = [subprocess.run([*command, "--half", "1"]).returncode]
            print("\n" + " the other half ".center(80, "="), flush=True)
        finally:
            statuses = [*statuses, other.wait()] if sys.exc_info()[0] is None else [other.wait()]      # Ctrl-C has reached it too
            log.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(log.read())
    return max(statuses, key=abs)


if __name__ == "__main__":
    if not is_plain(sys.argv[1:]) or len(os.sched_getaffinity(0)) < 2:
        sys.exit(pytest.main(sys.argv[1:]))
    try:
        sys.exit(both(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
