"""What Slurm is asked once before all jobs, and what a job tells those that come after it.

`python -m benchmarks.runs.slurm PROFILE` says in one sentence why Snakemake cannot use a profile.
"""

from __future__ import annotations

import argparse
import getpass
import importlib.util
import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.common.errors import DataError, as_exit
from benchmarks.runs import gpus

# The nodes on which a job found no GPU that works, an empty file for each.
FAULTY = Path("results/faulty-nodes")
PLUGIN = "snakemake-executor-plugin-"
OWN_EXECUTORS = ("local", "dryrun", "touch")


def note_faulty_node() -> None:
    """Jobs that are submitted from now on go to other nodes than that of this job, for a day."""
    if node := os.environ.get("SLURMD_NODENAME"):
        FAULTY.mkdir(parents=True, exist_ok=True)
        (FAULTY / node).touch()


def excluded_nodes() -> str | None:
    """The option of sbatch that keeps a job off nodes whose GPUs have failed; None if none has."""
    since = time.time() - gpus.FORGIVEN_SECONDS
    nodes = sorted(path.name for path in FAULTY.glob("*") if path.stat().st_mtime > since)
    return f"--exclude={shlex.quote(','.join(nodes))}" if nodes else None


@dataclass(frozen=True)
class Partition:
    """Nodes of one kind in a partition, as sinfo lists them; `minutes` is None for no limit."""

    name: str
    up: bool
    minutes: int | None
    cpus: int
    megabytes: int
    gpus: int
    models: tuple[str, ...]


def settings(profile: Path) -> dict:
    """What the file of a profile says; DataError if it cannot be read."""
    file = profile / "config.yaml"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the profile {file} cannot be read ({reason}): correct it") from error
    return found if isinstance(found, dict) else {}


def check_usable(profile: Path) -> None:
    """DataError unless Snakemake has the profile's file and its executor, and GPUs are numbers."""
    asked = settings(profile)
    if not plugin(asked):
        raise DataError(
            f"the profile {profile} needs the package {PLUGIN}{asked['executor']}, which is not "
            "installed: make slurm installs that for Slurm"
        )
    if counts_gpus(asked):
        gpus.slots()


def counts_gpus(asked: dict) -> bool:
    """Whether a profile has Snakemake count the GPUs of this machine."""
    return "gpu" in _pairs(asked.get("resources"))


def has_gpus(asked: dict) -> bool:
    """Whether jobs of a profile that has an executor are given a GPU, as they are by default."""
    return bool(_pairs(_pairs(asked.get("set-resources")).get("train")).get("gpu", 1))


def plugin(asked: dict) -> bool:
    """Whether Snakemake has the executor of a profile, or brings it."""
    name = asked.get("executor") or "local"
    module = f"{PLUGIN}{name}".replace("-", "_")
    return name in OWN_EXECUTORS or importlib.util.find_spec(module) is not None


def check(profile: Path, threads: int) -> list[str]:
    """What keeps the jobs of a profile from being run, a sentence each; none if Slurm takes them.

    Of a profile with another executor there is nothing to say.

    Raises:
        DataError: the profile cannot be read, or Slurm does not answer.
    """
    file, asked = profile / "config.yaml", settings(profile)
    if asked.get("executor") != "slurm":
        return []
    found = []
    if not plugin(asked):
        found.append(f"{PLUGIN}slurm is not installed: make slurm installs it")
    of_train = _pairs(_pairs(asked.get("set-resources")).get("train"))
    asked = {"gpu": 1} | _pairs(asked.get("default-resources")) | of_train
    everywhere = _partitions()
    names = ", ".join(sorted({partition.name for partition in everywhere}))
    name = asked.get("slurm_partition") or _default_partition()
    if not name:
        return [*found, f"{file} has no slurm_partition, and Slurm no default: name one of {names}"]
    name = str(name)
    partitions = [p for p in everywhere if p.name in name.split(",")]  # one job, where it fits
    if not partitions:
        return [*found, f"{file} asks for the partition {name!r}, but there are {names}"]
    found += _unmet(asked, threads, name, partitions, file)
    account = asked.get("slurm_account")
    own = _accounts()
    if account and own and str(account).lower() not in own:
        found.append(f"{file} asks for the account {account!r}, but yours are {', '.join(own)}")
    return found or _refusal(asked, threads, name)


def _pairs(value: object) -> dict:
    """Resources as profiles write them: a mapping, or a list of NAME=VALUE."""
    if isinstance(value, list):
        value = dict(str(item).split("=", 1) for item in value if "=" in str(item))
    if not isinstance(value, dict):
        return {}
    return {k: int(v) if isinstance(v, str) and v.isdecimal() else v for k, v in value.items()}


def _unmet(
    asked: dict, threads: int, name: str, partitions: list[Partition], file: Path
) -> list[str]:
    """What no node of the partition can give, each by itself."""
    found: list[str] = []
    if not any(partition.up for partition in partitions):
        found.append(f"the partition {name!r} takes no jobs now: name another one in {file}")
    limits = [partition.minutes for partition in partitions]
    minutes = asked.get("runtime")
    if isinstance(minutes, int) and None not in limits and minutes > max(limits):
        found.append(
            f"a job may take runtime: {minutes} minutes by {file}, but at most {max(limits)} in "
            f"the partition {name!r}: lower it, for a run goes on where a job before has ended"
        )
    gpus, model = asked.get("gpu"), asked.get("gpu_model")
    wanted = {
        "mem_mb": (asked.get("mem_mb"), "MB of memory", max(p.megabytes for p in partitions)),
        "threads": (threads, "CPU cores", max(p.cpus for p in partitions)),
        "gpu": (gpus, "GPUs", max(p.gpus for p in partitions)),
    }
    for setting, (number, what, most) in wanted.items():
        if isinstance(number, int) and number > most:
            found.append(
                f"a job asks for {number} {what} ({setting}), but no node of the partition "
                f"{name!r} has more than {most}: correct {file}"
            )
    models = sorted({kind for partition in partitions for kind in partition.models})
    if gpus and model and models and model not in models:
        found.append(f"{file} asks for the GPU {model!r}, but there are {', '.join(models)}")
    return found


def _refusal(asked: dict, threads: int, partition: str) -> list[str]:
    """What Slurm itself has against such a job, which it is asked for and does not get."""
    command = ["sbatch", "--test-only", "--partition", partition, f"--cpus-per-task={threads}"]
    names = {"slurm_account": "account", "runtime": "time", "mem_mb": "mem", "gpu": "gpus"}
    names |= {"constraint": "constraint", "qos": "qos"}
    options = {names[key]: value for key, value in asked.items() if key in names and value}
    if "gpus" in options and asked.get("gpu_model"):
        options["gpus"] = f"{asked['gpu_model']}:{options['gpus']}"
    command += [f"--{name}={value}" for name, value in options.items()]
    command += [*shlex.split(str(asked.get("slurm_extra") or "")), "--wrap", "true"]
    code, said = _ask(*command)
    reason = said.partition("error: ")[2].partition("\n")[0] or said
    return [] if code == 0 else [f"Slurm would not take a job: {' '.join(reason.split())}"]


def _partitions() -> list[Partition]:
    code, said = _ask("sinfo", "--noheader", "--exact", "--format", "%R|%a|%l|%c|%m|%G")
    rows = [line.split("|") for line in said.splitlines()]
    if code or not rows or any(len(row) != 6 for row in rows):
        reason = " ".join(said.split())[:200]
        raise DataError(
            f"Slurm does not answer ({reason}): ask from where jobs are submitted, or take "
            f"another PROFILE"
        )
    found = []
    for name, state, limit, cpus, megabytes, resources in rows:
        gpus = re.findall(r"\bgpu:(?:([^:,()]+):)?(\d+)", resources)
        models = tuple(model for model, _ in gpus if model)
        number = sum(int(count) for _, count in gpus)
        sizes = (int(re.match(r"\d+", size)[0]) for size in (cpus, megabytes))
        seconds = _seconds(limit)
        minutes = None if seconds is None else seconds // 60
        found.append(Partition(name, state == "up", minutes, *sizes, number, models))
    return found


def _default_partition() -> str | None:
    """The one that sinfo marks."""
    _, said = _ask("sinfo", "--noheader", "--format", "%P")
    return next((line.rstrip("*") for line in said.split() if line.endswith("*")), None)


def _accounts() -> list[str]:
    """The user's; none where Slurm keeps no accounts."""
    user = f"user={getpass.getuser()}"
    command = ("sacctmgr", "--noheader", "--parsable2", "show", "associations", user)
    code, said = _ask(*command, "format=account")
    return [] if code else sorted({line.lower() for line in said.split()})


def seconds_left() -> int | None:
    """Until the job ends in which this process is; None if it is in none, or in one without end."""
    if not (job := os.environ.get("SLURM_JOB_ID")):
        return None
    code, said = _ask("squeue", "--noheader", "--job", job, "--format", "%L")
    return None if code else _seconds(said.strip())


def _seconds(text: str) -> int | None:
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)  # or infinite, UNLIMITED
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _ask(*command: str) -> tuple[int, str]:
    """The exit status of a command, and what it says."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(description="Whether Snakemake can use a workflow profile.")
    parser.add_argument("profile", type=Path, help="a folder with a config.yaml")
    check_usable(parser.parse_args().profile)


if __name__ == "__main__":
    main()
