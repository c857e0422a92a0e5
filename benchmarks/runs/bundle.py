"""All that a suite needs, as one archive for a machine that reaches no network.

`python -m benchmarks.runs.bundle SUITE` writes `dist/treelora-SUITE-COMMIT.tar` and beside it the
archive's SHA-256. It holds the files of the commit, the prepared streams and backbones, what each
run is asked (`spec.json`), and the packages of requirements.lock as wheels, for the Python and the
platform that it is made with. Unpacked it is a checkout, in which `common.bundled` says what was
brought. The same commit and data make the same archive.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.text import visible
from benchmarks import backbones, streams
from benchmarks.backbones import model_folder
from benchmarks.common import archive, bundled
from benchmarks.common.archive import Source, readable
from benchmarks.common.data_dir import add_data_dir_option
from benchmarks.common.digests import sha256_of
from benchmarks.common.errors import DataError, as_exit
from benchmarks.common.files import ROOT, as_json, read_json, write_bytes
from benchmarks.runs import general, sources
from benchmarks.runs.plan import Plan, load_plan
from benchmarks.runs.record import git, provenance
from benchmarks.streams.common.tasks import RESOURCES

DIST, WHEELS = Path("dist"), Path("wheels")
LOCKS = ("requirements.lock", "requirements-slurm.lock")


@dataclass(frozen=True)
class Part:
    """Files that are of use together, by their place in the checkout.

    Attributes:
        remedy: what a machine that does not get the part needs.
        brought: of a stream or a backbone what `bundled.facts` says: its kind, and its manifest by
            what it is known by.
    """

    name: str
    files: dict[str, Source]
    remedy: str = ""
    brought: tuple[str, dict[str, dict]] | None = None

    @cached_property
    def n_bytes(self) -> int:
        return sum(map(archive.size, self.files.values()))

    def __str__(self) -> str:
        return f"{self.name}, {readable(self.n_bytes)}"


def write(plan: Plan, wheels: bool, limit_gb: float) -> tuple[Path, list[Part], list[Part]]:
    """Write the archive of a plan, and `ARCHIVE.sha256`.

    Args:
        wheels: whether it brings the packages.
        limit_gb: beyond this size of all the largest parts are left out.

    Returns:
        The archive, its parts, and those that were left out.

    Raises:
        DataError: the commit has not all the code there is, or all files that the suite names; data
            is not prepared; the packages cannot be fetched; there is no room.
    """
    commit = _check_commit(plan)
    tracked = git("ls-files", "-z").rstrip("\0").split("\0")
    there = [
        Part("code", {path: ROOT / path for path in tracked}),
        Part("specs", {path: Path(path) for path in [run.write_spec() for run in plan.runs]}),
    ]
    time = int(git("show", "-s", "--format=%ct", commit))
    DIST.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=DIST) as folder:
        parts = [*_streams(plan), *_backbones(plan)]
        parts += [_packages(Path(folder), time)] if wheels else []
        left_out, left = [], limit_gb * 1e9 - sum(part.n_bytes for part in there)
        for part in sorted(parts, key=lambda part: part.n_bytes):
            fits = part.n_bytes <= left
            (there if fits else left_out).append(part)
            left -= part.n_bytes * fits
        facts = {"commit": commit, "streams": {}, "backbones": {}}
        for kind, manifest in filter(None, (part.brought for part in there)):
            facts[kind] |= manifest
        files = {path: source for part in there for path, source in part.files.items()}
        target = DIST / f"treelora-{plan.name}-{commit[:12]}.tar"
        digest = archive.write(target, files | {bundled.FACTS: as_json(facts)}, time)
    write_bytes(Path(f"{target}.sha256"), f"{digest}  {target.name}\n".encode())
    return target, there, left_out


def _check_commit(plan: Plan) -> str:
    """The commit, if it has all code there is and every file that the suite names."""
    facts = provenance()
    if not (ROOT / ".git").exists() or facts["commit"] is None:
        raise DataError(f"a bundle is of a commit, and {ROOT} has no git: make it in a clone")
    if facts["dirty"]:
        raise DataError("a bundle is of a commit, and the code here is another one's: commit it")
    named = {plan.file.absolute()}.union(*(sources.files(run.spec) for run in plan.runs))
    tuned = {run.spec["method"].get("tuned", "").partition("/")[0] for run in plan.runs}
    beside = (plan.file.absolute().with_name(f"{suite}.yaml") for suite in tuned)
    named |= {file for file in beside if file.is_file()}  # the suites that chose settings
    texts = {run.spec["train"].get("general") for run in plan.runs} - {None, general.DOCS}
    tracked = git("ls-files", "-z").split("\0")
    for file in sorted(named.union(map(os.path.abspath, texts))):
        if os.path.relpath(file, ROOT) not in tracked:
            raise DataError(
                f"the suite needs {file}, and the commit has no such file: put it into {ROOT} and "
                "commit it"
            )
    return facts["commit"]


def _streams(plan: Plan) -> list[Part]:
    parts = []
    for name, asked in sorted(plan.stream_specs.items()):
        folder = RESOURCES / "streams" / name
        manifest = _manifest(folder, asked.get("digest"))
        brought = {shlex.join(streams.of(asked).arguments): manifest}
        parts.append(Part(f"stream {name}", _files(folder), "its data", ("streams", brought)))
    return parts


def _backbones(plan: Plan) -> list[Part]:
    digests = {run.backbone: run.spec["backbone"]["digest"] for run in plan.runs}
    parts = []
    for name, digest in sorted(digests.items()):
        folder = RESOURCES / "backbones" / name
        manifest, files = _manifest(folder, digest), _files(folder)
        weights = Path(manifest["weights"])
        if isinstance(backbones.find(name), backbones.Embedded):
            beside = weights.parent.glob(f"{name}.*")  # with its tokenizer
            files |= {str(file): file for file in beside if file.suffix != ".log"}
        elif not weights.is_relative_to(folder):
            whole = weights.is_dir()
            for file in model_folder.files(weights) if whole else [weights]:
                below = file.relative_to(weights if whole else weights.parent)
                files[str(folder / "weights" / below)] = file
            manifest["weights"] = str(folder / "weights" / ("" if whole else weights.name))
            files[str(folder / "manifest.json")] = as_json(manifest)
        brought = "backbones", {name: manifest}
        parts.append(Part(f"backbone {name}", files, "its weights", brought))
    return parts


def _manifest(folder: Path, digest: str | None) -> dict:
    """Of a stream or backbone that is prepared; DataError if it is not the one of that digest."""
    manifest = read_json(folder / "manifest.json")
    if digest not in (None, manifest["fingerprint"]):
        raise DataError(f"{folder} is not what the suite asks for: say make bundle, which makes it")
    return manifest


def _files(folder: Path) -> dict[str, Source]:
    """All of a prepared folder but the log, which names places of this machine."""
    return {str(p): p for p in folder.rglob("*") if p.is_file() and p.name != "log.txt"}


def _packages(folder: Path, time: int) -> Part:
    """Fetch the packages of the locks into a folder, and build those that have no wheel."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--wheel-dir", str(folder)]
    command += [f"--requirement={ROOT / lock}" for lock in LOCKS]
    same = os.environ | {"SOURCE_DATE_EPOCH": str(time)}  # as the time of files in a wheel
    done = subprocess.run(command, env=same, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise DataError(
            f"the packages of {LOCKS[0]} could not be fetched ({visible(*said[-1:] or ['?'])}): "
            "correct that, or leave them out with --no-wheels"
        )
    lock = (ROOT / LOCKS[0]).read_text(encoding="utf-8")
    files: dict[str, Source] = {}
    for wheel in folder.glob("*.whl"):
        files[str(WHEELS / wheel.name)] = wheel
        if (digest := sha256_of(wheel)) not in lock:  # it was built here
            package = wheel.name.partition("-")[0].lower().replace("_", "-")
            pin = rf"^({re.escape(package)}==.*\\)$"
            lock = re.sub(pin, rf"\1\n    --hash=sha256:{digest} \\", lock, flags=re.MULTILINE)
    files[str(WHEELS / LOCKS[0])] = lock.encode()
    files[str(WHEELS / "python")] = f"{sys.version_info.major}.{sys.version_info.minor}\n".encode()
    return Part("packages", files, "a package index")


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    parser.add_argument("--no-wheels", action="store_true", help="leave the packages out")
    parser.add_argument(
        "--limit-gb", type=float, default=math.inf, metavar="N", help="leave out what is beyond"
    )
    add_data_dir_option(parser)
    o = parser.parse_args()
    if not o.limit_gb > 0:
        parser.error(f"--limit-gb must be positive, but is {o.limit_gb}")
    target, there, left_out = write(load_plan(o.suite, o.data_dir), not o.no_wheels, o.limit_gb)
    for part in there:
        print(f"  {part}")
    for part in left_out:
        print(f"  left out: {part}; that machine needs {part.remedy}")
    print(f"{target}, {readable(target.stat().st_size)}")


if __name__ == "__main__":
    main()
