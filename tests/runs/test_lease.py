"""One process at a time makes a run: holders that live, that died, and on other hosts."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.common.errors import Postponed
from benchmarks.runs import lease
from tests.checkout import ROOT

HOLD = """
import sys, time
from pathlib import Path
from benchmarks.runs import lease
with lease.hold(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


class Waited(Exception):
    pass


def no_waiting():
    raise Waited


def take(folder):
    """Take the lease and give it back; Waited if another process holds it."""
    with lease.hold(folder, no_waiting):
        pass


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lease of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def written(folder, number=1, **changes) -> Path:
    """The lease that a process like this one would leave behind if it died."""
    with lease.hold(folder, no_waiting):
        (own,) = folder.glob("lease-*.json")
        content = json.loads(own.read_text())
    path = folder / f"lease-{number}.json"
    path.write_text(json.dumps(content | changes))
    return path


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_lease_is_given_back(tmp_path):
    for _ in range(2):
        with lease.hold(tmp_path, no_waiting) as check:
            check()
            assert lease.is_held(tmp_path)
        assert not lease.is_held(tmp_path) and list(tmp_path.iterdir()) == []


def test_a_living_holder_is_named_and_waited_for_however_long_it_takes(tmp_path, holder, capsys):
    (own,) = tmp_path.glob("lease-*.json")
    age(own, 10 * lease.STALE_SECONDS)
    with pytest.raises(Waited):
        take(tmp_path)
    assert f"is being made by process {holder.pid} on " in capsys.readouterr().err
    waited = []

    def wait():
        if waited.append(None) or len(waited) == 2:
            holder.kill()

    with lease.hold(tmp_path, wait):
        assert len(waited) >= 2
    assert capsys.readouterr().err.count("waits for it") == 1


def test_a_dead_holder_on_this_machine_is_noticed_at_once(tmp_path, holder):
    holder.kill()  # and not waited for: a zombie is dead as well
    while lease.is_held(tmp_path):
        time.sleep(0.01)
    take(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_process_under_the_holders_number_is_not_the_holder(tmp_path):
    written(tmp_path, started="1")
    take(tmp_path)


@pytest.mark.parametrize("lost", ["machine", "everything"])
def test_a_holder_out_of_sight_lives_as_long_as_it_touches_its_lease(tmp_path, lost):
    path = written(tmp_path, machine="another", host="node7", slurm_job="42")
    if lost == "everything":  # as while it is being written
        path.write_text("")
    age(path, lease.STALE_SECONDS - 60)
    with pytest.raises(Waited):
        take(tmp_path)
    age(path, lease.STALE_SECONDS + 60)
    take(tmp_path)


def test_a_holder_on_another_host_is_named(tmp_path, capsys):
    written(tmp_path, machine="another", host="node7", process=11, slurm_job="42")
    with pytest.raises(Waited):
        take(tmp_path)
    said = capsys.readouterr().err
    assert "is being made by process 11 on node7 (Slurm job 42): waits for it" in said


def test_a_holder_keeps_its_lease_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "TOUCH_SECONDS", 0.01)
    with lease.hold(tmp_path, no_waiting):
        (own,) = tmp_path.glob("lease-*.json")
        age(own, 1000)
        before = own.stat().st_mtime
        while own.stat().st_mtime == before:
            time.sleep(0.01)


def test_of_two_that_find_a_dead_holder_one_takes_over(tmp_path, monkeypatch):
    written(tmp_path, started="1")
    other = tmp_path / "lease-2.json"

    def overtaken(path):
        """Between the look at the dead holder and the next lease, another process takes it."""
        monkeypatch.undo()
        other.write_text("{}")
        return False

    monkeypatch.setattr(lease, "_lives", overtaken)
    with pytest.raises(Waited):
        take(tmp_path)
    assert other.read_text() == "{}" and lease.is_held(tmp_path)


def test_who_was_away_for_too_long_saves_nothing(tmp_path):
    with lease.hold(tmp_path, no_waiting) as check:
        other = tmp_path / "lease-2.json"
        other.write_text(json.dumps({"process": 5, "host": "node7"}))
        with pytest.raises(Postponed, match="was taken over by process 5 on node7: left to it"):
            check()
    assert other.exists()  # it is not this process's to give back
