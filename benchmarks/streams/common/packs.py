"""Streams of text tasks, read from the packs in which they are handed out.

Tasks are read from the first of these that has them, in the data directory or in `path`:

1. a pack, `llm_cl_benchmark_500` or `llm_cl_benchmark_5000`, also under the names in which TRACE is
   handed out, `LLM-CL-Benchmark_500` and `TRACE-Benchmark/LLM-CL-Benchmark_500`, as a folder or as
   an archive (.tar.xz, .tar.gz, .zip) of that name;
2. O-LoRA's own folder `CL_Benchmark` with all of its items, and `configs` beside it.

The original archives are behind pages without a fixed address, so nothing is downloaded.

The digest of a stream is that of its tasks' names, order, metrics and files, wherever these lie.
Where there are none, it is that of the pack of 500 items: so a plan can be made, and published
results are found, without the data. `eval.json` is never trained or tested on; it is read to say
whether it is the test set under another name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from analysis.text import suggest
from benchmarks.common.data_dir import DATA_DIR_VARIABLE
from benchmarks.common.digests import digest_of
from benchmarks.common.errors import DataError
from benchmarks.common.files import expanded, require_plain, write_bytes
from benchmarks.common.progress import Progress
from benchmarks.scoring import text_metrics
from benchmarks.streams.common import sources
from benchmarks.streams.common.base import LanguageStream
from benchmarks.streams.common.defects import asked, inspect
from benchmarks.streams.common.items import Task, tasks_in
from benchmarks.streams.common.text_tasks import TASKS

EXTENSIONS = (".tar.xz", ".tar.gz", ".tgz", ".zip")
ORIGIN = (
    "they come from the authors of TRACE (github.com/BeyonderXX/TRACE) and of O-LoRA "
    "(github.com/cmnfriend/O-LoRA)"
)


class TextStream(LanguageStream):
    """A stream of text tasks; its options have `path` and `keep_leaks`.

    Attributes:
        metrics: of the tasks by name, in their order.
        stops: texts before which answers end, of those tasks that have one.
        size: of the pack; None for 500, or for what there is.
        version: of the reader, to be raised when the same files give other items.
    """

    metrics: dict[str, str]
    stops: Mapping[str, str] = {}
    size: int | None = None
    version = 1

    @property
    def n_tasks(self) -> int:
        """As many as have a metric."""
        return len(self.metrics)

    @property
    def unit_names(self) -> list[str]:
        """The tasks."""
        return list(self.metrics)

    def fingerprint(self) -> str:
        """Digest of the tasks' names, order, metrics and files; of the pack if there are none."""
        if self.found:
            known = {
                place: dict(zip(names, place.digests(names), strict=True))
                for place, names in self._places.items()
            }
            digests = {n: task.digest(known[task.place]) for n, task in self.found.items()}
        elif self.size in (None, 500):
            digests = {name: TASKS[name].digest for name in self.metrics}
        else:
            digests = dict.fromkeys(self.metrics, f"no pack of {self.size} found")
        rows = [[name, metric, digests[name]] for name, metric in self.metrics.items()]
        parts = ["text", self.version, bool(self.options.keep_leaks), rows]
        if self.options.name == "text":  # the known streams' scores are those of version 1
            parts.append(text_metrics.VERSION)
        if self.stops:
            parts.append(dict(self.stops))
        return digest_of(parts)

    @property
    def _places(self) -> dict[sources.Files | Pack, list[str]]:
        """Where the tasks lie, each with the files that are needed of it."""
        places = defaultdict(list)
        for task in self.found.values():
            places[task.place] += task.names
        return places

    @cached_property
    def found(self) -> dict[str, Task]:
        """The tasks by name; empty if a known stream has none of them in the data directory."""
        path, every = self.options.path, {}
        root = self.data_dir if path is None else _own(path)
        for place in _places_in(root, self.size):
            every = tasks_in(place) | every
            if every.keys() >= self.metrics.keys():
                break
        found = {name: every[name] for name in self.metrics if name in every}
        if not found and path is None:
            return {}
        if not every:
            raise self._missing()
        for name in self.metrics:
            if name not in found:
                raise DataError(
                    f"the stream {self.options.name} needs the task {name!r}, which is not in "
                    f"{root}: {suggest(name, every)}"
                )
            found[name].check()
        return found

    def _missing(self) -> DataError:
        originals = "" if self.size else " or O-LoRA's CL_Benchmark"
        return DataError(
            f"the stream {self.options.name} needs the tasks {', '.join(self.metrics)}, none of "
            f"them is in {self.options.path or self.data_dir or 'a data directory'}: put "
            f"{' or '.join(_stems(self.size))} (a folder, or an archive {', '.join(EXTENSIONS)})"
            f"{originals} into the folder that {DATA_DIR_VARIABLE} or path names, {ORIGIN}"
        )

    def prepare(self, out: Path) -> dict:
        """Write data.json into `out` and return the manifest."""
        if not self.found:
            raise self._missing()
        name, path, keep_leaks = self.options.name, self.options.path, bool(self.options.keep_leaks)
        tasks, defects = [], []
        progress = Progress(f"prepare {name}", len(self.found), "tasks")
        contents = {place: dict(place.read(names)) for place, names in self._places.items()}
        for title, task in self.found.items():
            items, labels = task.read(contents[task.place])
            own, train = inspect(title, items, labels, keep_leaks)
            defects += own
            facts = {
                "name": title,
                "group": TASKS[title].group if title in TASKS else "",
                "metric": self.metrics[title],
            }
            if title in self.stops:
                facts["stop"] = self.stops[title]
            tasks.append(facts | {"train": train, "test": asked(items["test"])})
            progress.advance()
        # One item per line keeps a task readable.
        content = json.dumps(tasks, indent=0, ensure_ascii=False).encode() + b"\n"
        write_bytes(out / "data.json", content)
        origins = dict.fromkeys(task.origin for task in self.found.values())
        return {
            "source": f"the user's own tasks in {path}" if path else ", ".join(origins),
            "n_bytes": len(content),
            "keep_leaks": keep_leaks,
            "defects": defects,
            "tasks": [
                {key: task[key] for key in ("name", "group", "metric")}
                | {f"n_{part}": len(task[part]) for part in ("train", "test")}
                for task in tasks
            ],
        }


# ---------------------------------------------------------------------------- places


def _own(path: str) -> Path:
    """The user's folder or archive; DataError if it is not there."""
    place = expanded(path)
    if not place.exists():
        looked = place.absolute()
        raise DataError(f"path {path} is not there (as {looked}): correct it, or leave it out")
    if not place.is_dir():
        require_plain(place)
    return place


def _stems(size: int | None) -> list[str]:
    n = size or 500
    return [f"llm_cl_benchmark_{n}", f"LLM-CL-Benchmark_{n}", "TRACE-Benchmark"]


def _places_in(root: Path | None, size: int | None) -> Iterator[sources.Files | Pack]:
    """Folders and archives that are there, in the order in which tasks are looked for."""
    stems = _stems(size)
    packs = [*stems[:2], f"{stems[2]}/{stems[1]}"]
    if root is None:
        return
    if root.is_file():
        yield Pack(root, ["", *packs, "O-LoRA", "O-LoRA-main"])
        return
    found = [_folder(root / pack) for pack in packs if (root / pack).is_dir()]
    archives = [root / f"{stem}{extension}" for stem in stems for extension in EXTENSIONS]
    found += [
        Pack(file, packs if "TRACE" in file.name else ["", *packs])
        for file in archives
        if file.is_file()
    ]
    yield from found
    if size is not None and not found and root.name not in stems:
        return  # a size is that of a pack; the originals have their own
    yield _folder(root.parent if root.name == "CL_Benchmark" else root)
    for name in ("O-LoRA", "O-LoRA-main"):
        if (root / name).is_dir():
            yield _folder(root / name)
        for file in (root / f"{name}{extension}" for extension in EXTENSIONS):
            if file.is_file():
                yield Pack(file, ["", name])


def _folder(root: Path) -> sources.Files:
    """The JSON files of task folders on the disk, by their paths relative to `root`."""
    patterns = ("*/*.json", "CL_Benchmark/*/*/*.json")
    files = [file for pattern in patterns for file in root.glob(pattern)]
    paths = {file.relative_to(root).as_posix(): file for file in files}
    for name in paths:
        sources.require_printable(name, root)
    return sources.Files(root, dict(sorted(paths.items())), most=math.inf)


class Pack(sources.Archive):
    """Task folders in an archive, below the first of the folders `inner` that has any.

    Names are relative to it. Paths and digests are remembered by the digest of the archive, so
    that a plan need not read it.
    """

    def __init__(self, place: Path, inner: Sequence[str]):
        super().__init__(place, "its authors")
        self._inner = inner

    @cached_property
    def _known(self) -> dict:
        """The members, and the SHA-256 of those that were asked for."""
        known = sources.recall(self._memory)
        if not known.keys() >= {"members", "digests"}:  # none yet, or not of this version
            known = {"members": super().members, "digests": {}}
            sources.remember(self._memory, known)
        return known

    @property
    def members(self) -> dict[str, int]:
        return self._known["members"]

    @cached_property
    def _memory(self) -> Path:
        [own] = sources.remembered([self.place], "sha256")
        return sources.DIGESTS / f"{own[:12]}-members.json"

    @cached_property
    def paths(self) -> dict[str, str]:
        every = sorted(path for path in self.members if path.endswith(".json"))
        for folder in self._inner:
            prefix = f"{folder}/" if folder else ""
            task = re.compile(rf"{re.escape(prefix)}([^/]+|CL_Benchmark/[^/]+/[^/]+)/train\.json")
            if any(map(task.fullmatch, every)):
                break
        else:
            prefix = ""
        return {path.removeprefix(prefix): path for path in every if path.startswith(prefix)}

    def digests(self, names: Iterable[str]) -> list[str]:
        """SHA-256 of the files' contents."""
        known, paths = self._known["digests"], {name: self.paths[name] for name in names}
        unknown = [name for name, path in paths.items() if path not in known]
        if unknown:
            for name, content in self.read(unknown):
                known[paths[name]] = hashlib.sha256(content).hexdigest()
            sources.remember(self._memory, self._known)
        return [known[self.paths[name]] for name in names]
