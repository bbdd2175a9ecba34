"""What the benchmarks of routing start ends with them, whatever it does."""

import os
import stat
import subprocess
import time

import pytest
from benchmarks.vllm.routing import processes

# Answers nobody, has a child of its own, and does not end when it is asked to.
STUBBORN = """#!/bin/sh
trap '' TERM
sleep 300 &
echo $$ $! > {pids}
while true; do sleep 1; done
"""


@pytest.fixture
def stubborn(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_MOST_STOP_SECONDS", 0.2)
    command, pids = tmp_path / "stubborn", tmp_path / "pids"
    command.write_text(STUBBORN.format(pids=pids))
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return str(command), pids


def started(stubborn, tmp_path):
    command, pids = stubborn
    return processes.router(command, [], policy="any", folder=tmp_path, arguments=[]), pids


def read(pids):
    until = time.monotonic() + 20
    while not (pids.exists() and pids.read_text().strip()) and time.monotonic() < until:
        time.sleep(0.01)
    return [int(each) for each in pids.read_text().split()]


def is_running(pid):
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        pass
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_end(pids):
    until = time.monotonic() + 5
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(is_running, pids))


def test_a_process_that_does_not_end_is_killed_with_its_children(stubborn, tmp_path):
    router, pids = started(stubborn, tmp_path)
    with router:
        both = read(pids)
        assert all(map(is_running, both))
    assert all_end(both)


def test_also_where_who_waits_for_it_is_interrupted_again(stubborn, tmp_path, monkeypatch):
    def interrupted_wait(process, timeout=None):
        if timeout is not None:
            raise KeyboardInterrupt
        return wait(process)

    wait = subprocess.Popen.wait
    router, pids = started(stubborn, tmp_path)
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted_wait)
    with pytest.raises(KeyboardInterrupt), router:
        both = read(pids)
    assert all_end(both)


def test_one_that_ends_before_it_answers_tells_what_it_printed(tmp_path):
    command = tmp_path / "ends"
    command.write_text("#!/bin/sh\necho no such thing; exit 3\n")
    command.chmod(0o700)
    with (
        processes.router(str(command), [], policy="any", folder=tmp_path, arguments=[]) as router,
        pytest.raises(RuntimeError, match="no such thing"),
    ):
        router.wait()
