"""The environments agree with each other, and what is committed is small, portable and complete."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from snakemake.cli import parse_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20


def pins(text: str) -> dict[str, str]:
    """Each pinned package with its version and, where it has one, its platform marker."""
    found = re.findall(r"^\s*(?:- )?([a-z0-9][a-z0-9.-]*)==(.+?)(?: \\)?$", text, re.MULTILINE)
    assert len(found) == len(dict(found)), "a package is pinned twice"
    return dict(found)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def named(name: str) -> set[str]:
    """The packages that a requirements*.in names, those of the file it includes among them."""
    lines = [line.split("#")[0].strip() for line in read(name).splitlines()]
    included = [named(line.split()[1]) for line in lines if line.startswith("-r")]
    own = {re.split(r"[=<>~! ]", line)[0] for line in lines if line and line[0] != "-"}
    return own.union(*included)


def tracked() -> list[Path]:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def test_the_conda_environment_carries_the_pins_of_the_lock():
    *conda, pip = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pins("\n".join(pip["pip"])) == pins(read("requirements.lock"))


def test_the_image_has_the_lock_and_the_python_of_the_conda_environment():
    header, *sections = re.split(r"^%(?=\w)", read("apptainer.def"), flags=re.MULTILINE)
    scripts = dict(section.split("\n", 1) for section in sections)
    [python] = re.findall(r"^From: python:([\d.]+)", header, re.MULTILINE)
    assert f"python={python}" in yaml.safe_load(read("environment.yml"))["dependencies"]
    lock, place = scripts["files"].split()
    assert lock == "requirements.lock"
    assert re.search(rf"--require-hashes\s.*--requirement {place}$", scripts["post"], re.M | re.S)
    for name in ("post", "environment", "runscript", "test"):
        subprocess.run(["sh", "-n"], input=scripts[name], text=True, check=True)


def test_the_light_environment_is_a_part_of_the_full_one_and_has_no_torch():
    light, full = pins(read("requirements-figures.lock")), pins(read("requirements.lock"))
    assert light.items() <= full.items()
    assert not [name for name in light if name.startswith(("torch", "nvidia"))]


def test_the_executor_for_slurm_adds_only_itself_to_the_environment():
    added = pins(read("requirements-slurm.lock")).items() - pins(read("requirements.lock")).items()
    own = "snakemake-executor-plugin-slurm"
    assert {name for name, _ in added} == {own, f"{own}-jobstep"}


@pytest.mark.parametrize("name", ["requirements", "requirements-figures", "requirements-slurm"])
def test_every_named_package_is_pinned_with_hashes(name):
    lock = read(f"{name}.lock")
    assert named(f"{name}.in") <= set(pins(lock))
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_gpu_profile_is_the_default_one_with_a_number_of_gpus():
    default, gpu = (yaml.safe_load(read(f"profiles/{n}/config.yaml")) for n in ("default", "gpu"))
    assert {key: value for key, value in gpu.items() if not key.startswith("__")} == default | {
        "resources": gpu["resources"]
    }
    assert gpu["resources"].keys() == {"gpu"}


def test_the_tree_is_small():
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked()}
    assert {name: size for name, size in sizes.items() if size > 5 * MEGABYTE} == {}
    assert sum(sizes.values()) < 10 * MEGABYTE


def test_no_file_names_a_machine():
    """No home or temporary folder, registry host or user appears in what is committed, but the
    address of a published file that is pinned."""
    machine = re.compile(
        r"(?<![\w.~])/(?:home|root|Users|tmp|work|mnt|opt|private)/\w|"
        r"\bpypi\.org|(?<!files\.)\bpythonhosted\.org|--(?:extra-)?index-url|--find-links"
    )
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.name}: {match[0]}" for match in machine.finditer(text)]
    assert found == []


def test_the_commands_of_the_documents_are_make_targets():
    targets = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))
    pages = " ".join(p.read_text() for p in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
    code = " ".join(re.findall(r"```.*?```|`[^`\n]+`", pages, re.DOTALL))
    commands = set(re.findall(r"\bmake ([a-z-]+)\b", code))
    assert commands and commands <= targets


@pytest.mark.parametrize("command", ["replicate", "restore", "pretrain", "publish", "unlock"])
def test_a_target_is_never_taken_for_configuration(command):
    """`--config` takes all words up to the next option."""
    shown = subprocess.run(["make", "-n", command], cwd=ROOT, capture_output=True, text=True).stdout
    calls = re.findall(r"-m snakemake .*", shown.replace("\\\n", ""))
    assert calls
    assert all(re.search(r"--config suite=\S+( +\w+='\d+')+ +--", call) for call in calls)


def test_make_lists_its_commands_and_suites():
    shown = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    declared = re.search(r"^\.PHONY: (.+)$", read("Makefile"), re.MULTILINE)[1].split()
    assert sorted(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE)) == sorted(declared)
    suites = re.findall(r"^  (\w+) ", shown.partition("\nSuites\n")[2], re.MULTILINE)
    assert suites == sorted(path.stem for path in ROOT.glob("benchmarks/suites/*.yaml"))


def test_a_list_of_which_only_the_head_is_read_is_no_error():
    command = ["bash", "-o", "pipefail", "-c", "make --no-print-directory | true"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class Bench:
    """A folder with the Makefile, an empty lock and a Python that only notes what it is asked."""

    def __init__(self, folder: Path):
        self.folder, self.notes, self.broken = folder, folder / "notes", folder / "broken"
        self.unfinished = folder / "unfinished"
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "requirements.lock").write_text("# nothing\n")
        self.python = folder / "python"
        self.python.write_text(
            f"""#!/bin/sh
            echo "$@${{PIP_NO_INDEX:+ from $PIP_FIND_LINKS}}" >> '{self.notes}'
            case "$*" in
              *" venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
              *" pip "*) test ! -e '{self.broken}' ;;
              *" --complete") test ! -e '{self.unfinished}' ;;
            esac
            """
        )
        self.python.chmod(0o755)

    def make(self, python: str | None = None, *words: str, **changes) -> tuple[int, str, str]:
        """`make status`, or words: its exit code, what it says, and what was asked of Python."""
        self.notes.unlink(missing_ok=True)
        python = self.python if python is None else python
        command = ["make", *(words or ["status"]), f"PYTHON={python}"]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")} | changes
        done = subprocess.run(command, cwd=self.folder, env=clean, capture_output=True, text=True)
        notes = self.notes.read_text() if self.notes.exists() else ""
        return done.returncode, done.stdout + done.stderr, notes


@pytest.fixture
def bench(tmp_path) -> Bench:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    return Bench(folder)


def test_replicate_fails_while_runs_are_open(bench):
    """Whatever Snakemake ended with."""
    code, _, asked = bench.make(None, "replicate")
    assert code == 0 and re.search(
        r"-m snakemake .*\n-m benchmarks.runs.status demo --complete\n", asked
    )
    bench.unfinished.touch()
    assert bench.make(None, "replicate")[0] != 0
    assert bench.make(None, "status")[0] == 0


@pytest.mark.parametrize("suite", ["my suite's (1).yaml", "$(shell touch x).yaml", "`touch x`;"])
def test_a_suite_s_name_is_one_word_whatever_it_has(bench, suite):
    bench.make()
    for target in ("replicate", "plan", "status", "retry", "restore"):
        code, said, asked = bench.make(None, target, f"SUITE={suite}")
        assert code == 0 and f" {suite}" in asked, said
    value = re.search(r"--config (suite=.*) together=3 .*--workflow-profile", asked)[1]
    assert parse_config([value]) == {"suite": suite}
    assert not (bench.folder / "x").exists()


def test_the_environment_follows_the_content_of_the_lock_not_its_date(bench):
    bench.broken.touch()
    assert bench.make()[0] != 0
    bench.broken.unlink()
    code, _, asked = bench.make()  # an interrupted installation is made again, a whole one not
    assert code == 0 and " pip install " in asked and "--require-hashes" in asked
    assert bench.make() == (0, "", "-m benchmarks.runs.status demo\n")
    lock = bench.folder / "requirements.lock"
    later = lock.stat().st_mtime + 60
    os.utime(lock, (later, later))
    assert " pip " not in bench.make()[2]
    lock.write_text("# another\n")
    os.utime(lock, (later + 60, later + 60))
    assert " pip " in bench.make()[2]


def test_an_unpacked_bundle_installs_what_it_brought(bench):
    for name in ("wheels/python", "wheels/requirements.lock", "resources/data"):
        (bench.folder / name).parent.mkdir(exist_ok=True)
        (bench.folder / name).write_text("3.11\n")
    command = "sha256sum wheels/* resources/* Makefile > SHA256SUMS"
    subprocess.run(["sh", "-c", command], cwd=bench.folder, check=True)
    (bench.folder / "resources/data").write_text("other")
    code, said, asked = bench.make()
    assert code != 0 and "resources/data: FAILED" in said and "unpack it anew" in said
    assert not asked and not (bench.folder / ".venv").exists()
    (bench.folder / "resources/data").write_text("3.11\n")
    (bench.folder / "Makefile").open("a").write("# edited\n")
    code, said, asked = bench.make()
    assert code == 0 and "-r wheels/requirements.lock from wheels" in asked, said


def test_a_missing_python_is_one_sentence(bench):
    code, said, _ = bench.make(python="python3.11-of-nobody")
    assert code != 0 and "python3.11-of-nobody" in said and "PYTHON=" in said
    assert not (bench.folder / ".venv").exists()


def test_the_makefile_finds_a_python_by_itself(bench):
    """The first of several that it can use, whatever else has such a name."""
    tools = bench.folder / "tools"
    tools.mkdir()
    for tool in ("sh", "make", "cmp", "cp", "mkdir", "touch"):
        (tools / tool).symlink_to(shutil.which(tool))
    (tools / "python3.11").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3.11").chmod(0o755)
    code, said, _ = bench.make("", PATH=str(tools))
    assert code != 0 and "3.13" in said and not (bench.folder / ".venv").exists()
    shutil.copy(bench.python, tools / "python3.12")
    code, said, asked = bench.make("", PATH=str(tools))
    assert code == 0 and " venv " in asked, said


def test_the_library_installs_alone_and_needs_torch_only(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("treelora", "baselines"):
        shutil.copytree(ROOT / package, source / package)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, str(source), "-w", str(tmp_path)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("treelora-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
        (metadata,) = (n for n in archive.namelist() if n.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
        archive.extractall(tmp_path / "installed")
    assert {f for f in folders if not f.endswith(".dist-info")} == {"treelora"}
    assert [line for line in lines if line.startswith("Requires-Dist")] == ["Requires-Dist: torch"]
    script = "import sys, treelora; print(set(sys.modules) & {'peft', 'transformers', 'avalanche'})"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-c", script]
    out = subprocess.check_output(command, env=environment, cwd=tmp_path, text=True)
    assert out.strip() == "set()"
