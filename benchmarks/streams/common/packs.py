"""What the streams of real text tasks share: sources, metrics, defects and storage.

A task is a folder of `train.json`, `test.json` and, if there is one, `eval.json`, each a list of
{"prompt", "answer"}. Tasks are read from the first of these that has them, in the data directory
or in `path`:

1. a pack, `llm_cl_benchmark_500` or `llm_cl_benchmark_5000`, also under the names in which TRACE is
   handed out, `LLM-CL-Benchmark_500` and `TRACE-Benchmark/LLM-CL-Benchmark_500`, as a folder or as
   an archive (.tar.xz, .tar.gz, .zip) of that name;
2. O-LoRA's own folder `CL_Benchmark/<type>/<task>/{train,dev,test}.json`, lists of {"sentence",
   "label"} with `labels.json`, and the instruction of each type in
   `configs/instruction_config.json` beside it, all of their items (`_prompt`).

The original archives are behind pages without a fixed address, so nothing is downloaded.

The digest of a stream is that of its tasks' names, order, metrics and files, wherever these lie.
Where there are none, it is that of the pack of 500 items: so a plan can be made, and published
results are found, without the data. `eval.json` is never trained or tested on; it is read to say
whether it is the test set under another name.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import reprlib
import stat
import tarfile
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from benchmarks.common.files import (
    DATA_DIR_VARIABLE,
    DataError,
    digest_of,
    one_sentence,
    require_plain,
    write_bytes,
    write_json,
)
from benchmarks.common.progress import Progress
from benchmarks.scoring import scores
from benchmarks.streams.common import images as _images

VERSION = 1  # raise it when the same files give other items

SIZES = (500, 5000)
SCORINGS = ("released",)
EXTENSIONS = (".tar.xz", ".tar.gz", ".tgz", ".zip")
ORIGIN = (
    "they come from the authors of TRACE (github.com/BeyonderXX/TRACE) and of O-LoRA "
    "(github.com/cmnfriend/O-LoRA)"
)
INSTRUCTIONS = ("configs/instruction_config.json", "configs/instruction_config_cl.json")
PARTS = {  # of a task, by file name
    "train.json": "train",
    "eval.json": "eval",
    "dev.json": "eval",
    "test.json": "test",
    "labels.json": "labels",
}

# The kind of each known task decides its metrics, the word after it is its planted group.
KINDS = {
    "C-STANCE": ("label", "stance"),
    "FOMC": ("label", "stance"),
    "MeetingBank": ("summary", "generation"),
    "Py150": ("code", "code"),
    "ScienceQA": ("choice", "science"),
    "NumGLUE-cm": ("label", "arithmetic"),
    "NumGLUE-ds": ("label", "arithmetic"),
    "20Minuten": ("simplification", "generation"),
    "Lima": ("summary", "instruction"),
    "dbpedia": ("label", "topic"),
    "yahoo": ("label", "topic"),
    "agnews": ("label", "topic"),
    "amazon": ("label", "sentiment"),
    "yelp": ("label", "sentiment"),
    "IMDB": ("label", "sentiment"),
    "SST-2": ("label", "sentiment"),
    "MNLI": ("label", "inference"),
    "CB": ("label", "inference"),
    "RTE": ("label", "inference"),
    "QQP": ("label", "same meaning"),
    "WiC": ("label", "same meaning"),
    "COPA": ("label", "causes"),
    "BoolQA": ("label", "reading"),
    "MultiRC": ("label", "reading"),
}
METRICS = {  # kind -> by default, and with `scoring: released`
    "label": ("first_line", "prefix"),
    "choice": ("letter", "first_character"),
    "summary": ("rouge_l", "rouge_l_released"),
    "code": ("edit_similarity", "edit_similarity_released"),
    "simplification": ("sari", "sari"),
}

# Items of the pack of 500 where they are not 500 for training and 100 for testing.
N_ITEMS_500 = {"NumGLUE-cm": (500, 81), "CB": (250, 56), "COPA": (400, 100), "Lima": (1030, 300)}

# Tokens by Llama-2's tokenizer, for estimates: mean of a training item of at most 1,536, mean of a
# test prompt of at most 1,024, and the 95th percentile of the test answers.
TOKENS_500 = {
    "C-STANCE": (229, 239, 1),
    "FOMC": (92, 90, 1),
    "MeetingBank": (885, 1024, 196),
    "Py150": (539, 896, 31),
    "ScienceQA": (329, 86, 503),
    "NumGLUE-cm": (59, 54, 5),
    "NumGLUE-ds": (46, 41, 6),
    "20Minuten": (793, 708, 128),
    "Lima": (617, 29, 0),
    "dbpedia": (159, 149, 4),
    "amazon": (156, 148, 2),
    "yahoo": (216, 191, 5),
    "agnews": (103, 100, 3),
    "yelp": (232, 239, 2),
    "IMDB": (367, 356, 1),
    "SST-2": (46, 56, 1),
    "MNLI": (101, 96, 3),
    "CB": (144, 151, 3),
    "RTE": (138, 132, 3),
    "QQP": (75, 72, 1),
    "WiC": (65, 65, 1),
    "COPA": (52, 49, 1),
    "BoolQA": (202, 189, 1),
    "MultiRC": (452, 434, 1),
}

PACK_500 = {  # `_Task.digest` of the pack this was developed with
    "C-STANCE": "f6a70bf82b0ca714d0952d2275332a7d342140423ce3fd885bf1acb5ca2b3def",
    "FOMC": "24eef685d8a6760618ef295792ab922864ff540efcb67a660e6b2b1c1e674c75",
    "MeetingBank": "ad5cb2942c703c4c360697b19d60f1b0a3aa675099e27e5b653f8dd09a64d005",
    "Py150": "4d9cde1d475cc6dab36b79ff14dfa5f071783c81005bef832a202a2e7fceb342",
    "ScienceQA": "d481c2b4c782b66f59dc5458cec86ca109dd3638ff166e1d6e3247aa29e8fe06",
    "NumGLUE-cm": "1cf72f6e03bfad1beac3b1cf27d38d67bbc430c4f9ff0120f921f17fb2cfa464",
    "NumGLUE-ds": "8f89573641598aa450379f814587139cb0a447fc10b1bdae73ff76c78c1f5e4d",
    "20Minuten": "e2022e83793b613432126ef3863e653cca8e1a6652042adecb8f44c136d3cf96",
    "Lima": "0ed26d305137c74590a191bac1e5c8cf11888ff0f63c1ae6e26a96340d9254e0",
    "dbpedia": "e01b62154b4bb36c7f5509e7125fce492814cea217c6d2572f974336b8dc32f4",
    "yahoo": "26f252f79ede942ffaeefe62cfa46c91a503bfae9187d2e13ad4e316740413dc",
    "agnews": "99ce0842b8cd44057dd66e8c98eb6ad899c73de4651d830ca28edb1fe52ad93b",
    "amazon": "96be54e746f05ed6c94c9028be28234551f0f9cdc64439a3732d8e79cc13cddc",
    "yelp": "303b91e9a94846aa65e2f32c6d39558dad1436d58ff6944116a9b8f971304b6e",
    "IMDB": "342d278044613b1d39adfd040307cedfabcac19e8991b984954b16d4d3f3a3bf",
    "SST-2": "a3f6c361fc609c6598902227e4ce79ed656512f6b8661c79993c76ddb28d9359",
    "MNLI": "62b3cf2b711a7c9c1e12196faad6359dbdf8a0b0a0328a32ae9df96dd6555c80",
    "CB": "97b95461d36bdc7f9a8bed9b01ce442528f00ea00a33866c3115d9c5ddd17b67",
    "RTE": "7d1c96f641acd6a89fbce5a50ba40b53d27306745793b42f6f96c814fba8696b",
    "QQP": "dad1c09821c13758410c60a69a374f3cbf926126f1264b3a19916ce3b5b630de",
    "WiC": "e6182ca9d9041e954c12ebaf59b03fc20a1d2ea7d583d11c200da1ac885708c3",
    "COPA": "dc8166408de83496522a1ad49b7d32a45680660264b6d18a40ddd2980ec7ecd0",
    "BoolQA": "d0e461f158ec3406e4d83e327a2a2b44eaca3fce7632c1d0b4bb652f43f228ca",
    "MultiRC": "43ba593465f1cbf64464114e45aa8a243593f35afe644e9b926536083bde73b1",
}

Items = list[dict[str, str]]


def own_path(path: str | None) -> Path | None:
    """The user's folder or archive; DataError if it is not there."""
    if path is None:
        return None
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"path {path} is not there: correct it, or leave it out")
    if not place.is_dir():
        require_plain(place)
    return place


@dataclass(frozen=True)
class Stream:
    """Tasks with their metrics, in order, and where to look for them.

    Attributes:
        place: a folder or an archive; None if there is no data directory.
        size: of the pack; None for 500, or for what there is.
        path: as the user wrote it, if he did.
        keep_leaks: whether training items whose prompt is in the test set stay.
        version: of the reader, where it is not that of published records.
    """

    name: str
    metrics: Mapping[str, str]
    place: Path | None
    size: int | None = None
    path: str | None = None
    keep_leaks: bool = False
    version: int = VERSION

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the tasks' names, order, metrics and files; of the pack if there are none."""
        if self.found:
            known = {
                place: dict(zip(names, place.digests(names), strict=True))
                for place, names in self._places.items()
            }
            digests = {n: task.digest(known[task.place]) for n, task in self.found.items()}
        elif self.size in (None, 500):
            digests = PACK_500
        else:
            digests = dict.fromkeys(self.metrics, f"no pack of {self.size} found")
        rows = [[name, metric, digests[name]] for name, metric in self.metrics.items()]
        parts = ["text", self.version, self.keep_leaks, rows]
        if self.name == "text":  # the known streams' scores are those of version 1
            parts.append(scores.VERSION)
        return digest_of(parts)

    @property
    def _places(self) -> dict[_Folder | _Archive, list[str]]:
        """Where the tasks lie, each with the files that are needed of it."""
        places = defaultdict(list)
        for task in self.found.values():
            places[task.place] += task.names
        return places

    @cached_property
    def found(self) -> dict[str, _Task]:
        """The tasks by name; empty if a known stream has none of them in the data directory."""
        every: dict[str, _Task] = {}
        for place in _places(self.place, self.size):
            every = _tasks(place) | every
            if every.keys() >= self.metrics.keys():
                break
        found = {name: every[name] for name in self.metrics if name in every}
        if not found and self.path is None:
            return {}
        if not every:
            raise self._missing()
        for name in self.metrics:
            if name not in found:
                near = difflib.get_close_matches(name, every, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "add its folder"
                raise DataError(
                    f"the stream {self.name} needs the task {name!r}, {self.place} has "
                    f"{', '.join(sorted(every))}: {hint}"
                )
            found[name].check()
        return found

    def _missing(self) -> DataError:
        originals = "" if self.size else " or O-LoRA's CL_Benchmark"
        return DataError(
            f"the stream {self.name} needs the tasks {', '.join(self.metrics)}, none of them is in "
            f"{self.path or self.place or 'a data directory'}: put {' or '.join(_stems(self.size))}"
            f" (a folder, or an archive {', '.join(EXTENSIONS)}){originals} into the folder that "
            f"{DATA_DIR_VARIABLE} or path names, {ORIGIN}"
        )

    def prepare(self, out: Path) -> dict:
        """Write data.json into `out` and return the manifest."""
        if not self.found:
            raise self._missing()
        tasks, defects = [], []
        progress = Progress(f"prepare {self.name}", len(self.found), "tasks")
        with tempfile.TemporaryDirectory() as scratch:
            for place, names in self._places.items():
                place.unpack(names, Path(scratch) / str(id(place)))
            for name, task in self.found.items():
                items, labels = task.read(Path(scratch))
                own, train = inspect(name, items, labels, self.keep_leaks)
                defects += own
                tasks.append(
                    {
                        "name": name,
                        "group": KINDS[name][1] if name in KINDS else "",
                        "metric": self.metrics[name],
                        "train": train,
                        "test": _asked(items["test"]),
                    }
                )
                progress.advance()
        # One item per line keeps a task readable.
        content = json.dumps(tasks, indent=0, ensure_ascii=False).encode() + b"\n"
        write_bytes(out / "data.json", content)
        origins = dict.fromkeys(task.origin for task in self.found.values())
        return {
            "name": self.name,
            "modality": "language",
            "fingerprint": self.fingerprint,
            "source": f"the user's own tasks in {self.path}" if self.path else ", ".join(origins),
            "n_bytes": len(content),
            "keep_leaks": self.keep_leaks,
            "defects": defects,
            "tasks": [
                {key: task[key] for key in ("name", "group", "metric")}
                | {f"n_{part}": len(task[part]) for part in ("train", "test")}
                for task in tasks
            ],
        }


# ---------------------------------------------------------------------------- places


def _stems(size: int | None) -> list[str]:
    n = size or 500
    return [f"llm_cl_benchmark_{n}", f"LLM-CL-Benchmark_{n}", "TRACE-Benchmark"]


def _places(root: Path | None, size: int | None) -> Iterator[_Folder | _Archive]:
    """Folders and archives that are there, in the order in which tasks are looked for."""
    stems = _stems(size)
    packs = [*stems[:2], f"{stems[2]}/{stems[1]}"]
    if root is None:
        return
    if root.is_file():
        yield _Archive(root, ["", *packs, "O-LoRA", "O-LoRA-main"])
        return
    found = [_Folder(root / pack) for pack in packs if (root / pack).is_dir()]
    archives = [root / f"{stem}{extension}" for stem in stems for extension in EXTENSIONS]
    found += [
        _Archive(file, packs if "TRACE" in file.name else ["", *packs])
        for file in archives
        if file.is_file()
    ]
    yield from found
    if size is not None and not found and root.name not in stems:
        return  # a size is that of a pack; the originals have their own
    yield _Folder(root.parent if root.name == "CL_Benchmark" else root)
    for name in ("O-LoRA", "O-LoRA-main"):
        if (root / name).is_dir():
            yield _Folder(root / name)
        for file in (root / f"{name}{extension}" for extension in EXTENSIONS):
            if file.is_file():
                yield _Archive(file, ["", name])


class _Folder:
    """Task folders on the disk; `names` are those of JSON files relative to it."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def names(self) -> list[str]:
        patterns = ("*/*.json", "CL_Benchmark/*/*/*.json")
        files = (file for pattern in patterns for file in self.path.glob(pattern))
        names = sorted(file.relative_to(self.path).as_posix() for file in files)
        for name in names:
            _images.require_printable(name, self.path)
        return names

    def digests(self, names: Sequence[str]) -> list[str]:
        """SHA-256 of the files' contents."""
        return _images.remembered([self.path / name for name in names], "sha256")

    def unpack(self, names: Sequence[str], folder: Path) -> None:
        """Nothing to do."""

    def file(self, name: str, folder: Path) -> Path:
        """Where a file can be read, once it is unpacked into `folder`."""
        return self.path / name

    def where(self, name: str) -> str:
        return str(self.path / name)


class _Archive:
    """Task folders in a tar or zip file, below the first of the folders `inner` that has any."""

    def __init__(self, path: Path, inner: Sequence[str]):
        self.path, self._inner = path, inner

    @cached_property
    def _known(self) -> dict:
        """The names of all JSON files, and the SHA-256 of those that were asked for.

        Remembered by the digest of the archive, so that a plan need not read it.
        """
        try:
            return json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {"names": [name for name, _ in self._read()], "digests": {}}
        self._remember(known)
        return known

    def _remember(self, known: dict) -> None:
        with suppress(DataError):
            write_json(self._memory, known)

    @cached_property
    def _memory(self) -> Path:
        [own] = _images.remembered([self.path], "sha256")
        return _images.DIGESTS / f"{own[:12]}-contents.json"

    @cached_property
    def _prefix(self) -> str:
        for folder in self._inner:
            prefix = f"{folder}/" if folder else ""
            task = re.compile(rf"{re.escape(prefix)}([^/]+|CL_Benchmark/[^/]+/[^/]+)/train\.json")
            if any(task.fullmatch(name) for name in self._known["names"]):
                return prefix
        return ""

    @cached_property
    def names(self) -> list[str]:
        names = (name for name in self._known["names"] if name.startswith(self._prefix))
        return sorted(name.removeprefix(self._prefix) for name in names)

    def digests(self, names: Sequence[str]) -> list[str]:
        """SHA-256 of the files' contents."""
        full, known = [self._prefix + name for name in names], self._known["digests"]
        unknown = set(full) - known.keys()
        if unknown:
            for name, content in self._read():
                if name in unknown:
                    state = hashlib.sha256()
                    for chunk in content:
                        state.update(chunk)
                    known[name] = state.hexdigest()
            self._remember(self._known)
        return [known[name] for name in full]

    def unpack(self, names: Sequence[str], folder: Path) -> None:
        """Write the files into `folder`, below which their names have been found to stay."""
        wanted = {self._prefix + name for name in names}
        for name, content in self._read():
            if name not in wanted:
                continue
            file = self.file(name.removeprefix(self._prefix), folder)
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "wb") as unpacked:
                unpacked.writelines(content)

    def file(self, name: str, folder: Path) -> Path:
        """Where a file can be read, once it is unpacked into `folder`."""
        return folder / name

    def where(self, name: str) -> str:
        return f"{name} in {self.path}"

    def _read(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Names of all JSON files, after a look at every name, and their contents if asked for."""
        with one_sentence(self._broken):
            zipped = zipfile.is_zipfile(self.path)
            with zipfile.ZipFile(self.path) if zipped else _images.open_tar(self.path) as archive:
                every = archive.infolist() if zipped else _images.members_of(archive, self.path)
                for member in every:
                    name = self._checked(member)
                    if name.endswith(".json") and (zipped or member.isfile()):
                        yield name, self._pieces(archive, member, name)

    def _pieces(self, archive, member, name: str) -> Iterator[bytes]:
        with one_sentence(self._broken):
            zipped = isinstance(archive, zipfile.ZipFile)
            with archive.open(member) if zipped else archive.extractfile(member) as file:
                yield from _images.chunks(file, self.where(name))

    def _broken(self, reason: str) -> str:
        return f"{self.path} is truncated or no tar or zip file ({reason}): get it again"

    def _checked(self, member: tarfile.TarInfo | zipfile.ZipInfo) -> str:
        """The member's name, if it is no link and stays inside."""
        if isinstance(member, zipfile.ZipInfo):
            name, link = member.filename, stat.S_ISLNK(member.external_attr >> 16)
        else:
            name, link = member.name, member.islnk() or member.issym()
        path = PurePosixPath(name.replace("\\", "/"))
        if link or path.is_absolute() or ".." in path.parts:
            raise DataError(
                f"{self.path} holds the {'link' if link else 'path'} {name!r}, which could lead "
                "outside its folder and is refused: get the archive from its authors"
            )
        _images.require_printable(name, self.path)
        return path.as_posix()


# ---------------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class _Task:
    """The files of a task.

    Attributes:
        files: by part, of `PARTS`; names in `place`.
        type: O-LoRA's, which says the instruction; None if items have prompts.
    """

    name: str
    place: _Folder | _Archive
    files: dict[str, str]
    type: str | None = None

    @property
    def origin(self) -> str:
        return self.place.path.name if self.type is None else "O-LoRA's CL_Benchmark"

    @property
    def names(self) -> list[str]:
        """All files its items are made of."""
        return [*self.files.values(), *([self._instructions] if self._instructed else [])]

    def digest(self, known: Mapping[str, str]) -> str:
        """Of all its files, whatever the folder they lie in; `known` are those of the place."""
        return digest_of([self.type, {n.rpartition("/")[2]: known[n] for n in self.names}])

    def check(self) -> None:
        """DataError if a file is missing."""
        labelled = ("labels",) if self._instructed else ()
        for part in ("train", "test", *labelled):
            if part not in self.files:
                raise DataError(
                    f"the task {self.name!r} needs {part}.json, {self.place.path} does not have "
                    "it: add it"
                )
        _ = self.names

    @property
    def _instructed(self) -> bool:
        return self.type not in (None, "COPA")  # whose sentences are questions already

    @property
    def _instructions(self) -> str:
        for name in INSTRUCTIONS:
            if name in self.place.names:
                return name
        raise DataError(
            f"CL_Benchmark needs O-LoRA's instructions for {self.name!r}, {self.place.path} has no "
            f"{' or '.join(INSTRUCTIONS)}: copy it there from O-LoRA's repository"
        )

    def read(self, scratch: Path) -> tuple[dict[str, Items], list[str] | None]:
        """Items of train, test and eval (empty if there is none), and the labels if known."""
        folder = scratch / str(id(self.place))
        labels = None
        if "labels" in self.files:
            name = self.files["labels"]
            labels = _json(self.place.file(name, folder), self.place.where(name))
            if not isinstance(labels, list) or not all(map(_is_text, labels)):
                raise DataError(f"{self.place.where(name)} needs a list of words: correct it")
        head = ""
        if self._instructed:
            head = f"{self._instruction(folder)}Option: {', '.join(labels)} \n"
        fields = ("prompt", "answer") if self.type is None else ("sentence", "label")
        items: dict[str, Items] = {"eval": []}
        for part in ("train", "eval", "test"):
            if part not in self.files:
                continue
            name = self.files[part]
            where = self.place.where(name)
            rows = _rows(self.place.file(name, folder), where, fields)
            if not rows and part != "eval":
                raise DataError(f"{where} needs items, it has none: add some")
            pairs = ([row[field] for field in fields] for row in rows)
            items[part] = [
                {"prompt": _prompt(head, p, self.name) if self.type else p, "answer": answer}
                for p, answer in pairs
            ]
        return items, labels

    def _instruction(self, folder: Path) -> str:
        name = self._instructions
        where = self.place.where(name)
        config = _json(self.place.file(name, folder), where)
        try:
            entries = config[self.type]
            texts = [e["instruction"] for e in entries if e["instruction_type"] == "zero-shot"]
            if _is_text(texts[0]):
                return texts[0]
        except (KeyError, IndexError, TypeError):
            pass
        raise DataError(
            f"{where} needs a zero-shot instruction for {self.type!r}: take the file of O-LoRA's "
            "repository"
        )


def _tasks(place: _Folder | _Archive) -> dict[str, _Task]:
    """Tasks by name: folders with prompts, and then O-LoRA's in a folder of their type."""
    found: dict[tuple, dict[str, str]] = defaultdict(dict)
    for name in place.names:
        *folders, file = name.split("/")
        if file in PARTS:
            found[tuple(folders)][PARTS[file]] = name
    tasks: dict[str, _Task] = {}
    for folders, files in sorted(found.items(), key=lambda item: len(item[0])):
        if "train" not in files and "test" not in files:
            continue
        if len(folders) == 1:
            name = _images.composed(folders[0])
            if name in tasks:
                raise DataError(
                    f"{place.path} holds the task {name!r} twice, once with letters and accents "
                    "apart: remove one"
                )
            tasks[name] = _Task(name, place, files)
        elif len(folders) == 3 and folders[0] == "CL_Benchmark":
            tasks.setdefault(folders[2], _Task(folders[2], place, files, folders[1]))
    return tasks


def _prompt(head: str, sentence: str, task: str) -> str:
    """O-LoRA's prompt: instruction, options, the sentence and the question for the answer.

    As in the packs, a line break that is written out becomes one (but agnews, where a backslash is
    a space, has words that begin with n), one at the end is not doubled, and yahoo's own "Answer: "
    before the text is left out.
    """
    if task != "agnews":
        sentence = sentence.replace("\\n", "\n")
    if task == "yahoo":
        sentence = sentence.replace("Answer: ", "")
    return head + sentence.removesuffix("\n") + "\nAnswer:"


def _json(file: Path, where: str):
    try:
        require_plain(file)
        content = file.read_bytes()
    except OSError as error:
        raise _images.unreadable(file, error) from error
    with one_sentence(lambda reason: f"{where} is no valid JSON ({reason}): replace it"):
        return json.loads(content, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, object]]) -> dict:
    """An object with its keys; JSON would take the last of two equal ones without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {key!r:.60} stands twice in an object")
    return found


def _is_text(value: object) -> bool:
    """Whether this is text that can be written: no half of a character, as JSON may hold."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _rows(file: Path, where: str, fields: tuple[str, str]) -> list[dict]:
    """The items of a file, each with text in both fields."""
    import datasets

    found = _json(file, where)
    if fields[0] == "sentence" and isinstance(found, dict):  # as in Natural Instructions
        found = found.get("Instances")
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise DataError(f"{where} needs a list of items with {' and '.join(fields)}: correct it")
    for i, row in enumerate(found):
        for field in fields:
            if not _is_text(row.get(field)):
                raise DataError(
                    f"{where} needs the text {field!r} in each item, item {i + 1} has "
                    f"{reprlib.repr(row.get(field))}: correct it"
                )
    if not found:
        return []  # of which the library makes an error
    # Declared, so that the library does not take a text for a date or a number.
    texts = datasets.Features({field: datasets.Value("string") for field in fields})
    rows = [{field: row[field] for field in fields} for row in found]
    return datasets.Dataset.from_list(rows, features=texts).to_list()


# ---------------------------------------------------------------------------- defects


def _asked(items: Items) -> Items:
    """Those with a prompt; all of them if none has one, as in a task that asks for any text.

    A model whose texts begin without a token has nothing to go on from an empty prompt.
    """
    return [item for item in items if item["prompt"].strip()] or items


def inspect(
    task: str, items: Mapping[str, Items], labels: list[str] | None, keep_leaks: bool
) -> tuple[list[dict], Items]:
    """What is wrong with a task's items, and those to train on.

    Args:
        items: of train, test and eval, the last one may be empty.
        labels: the answers there should be, if that is known.
        keep_leaks: whether training items whose prompt is in the test set stay.

    Returns:
        Defects, each with task, kind, count and note; training items.
    """
    found, items = items, {part: _asked(own) for part, own in items.items()}
    train, test = items["train"], items["test"]
    prompts = {part: {item["prompt"] for item in items[part]} for part in items}
    defects = []

    def report(kind: str, count: int, note: str) -> None:
        if count:
            defects.append({"task": task, "kind": kind, "count": count, "note": note})

    def pairs(part: str) -> set[tuple[str, str]]:
        return {(item["prompt"], item["answer"]) for item in items[part]}

    for part in ("train", "test"):
        empty = sum(not item["prompt"].strip() for item in found[part])
        fate = "dropped" if len(items[part]) < len(found[part]) else "kept, as there is no other"
        report("empty prompt", empty, f"of {len(found[part])} prompts in {part}.json: {fate}")
    if pairs("eval") == pairs("test"):
        report(
            "eval is test", len(test), "eval.json holds the items of test.json: never tune on it"
        )
    for part in ("test", "eval"):
        count = len(prompts["train"] & prompts[part])
        leaks = sum(item["prompt"] in prompts[part] for item in train)
        fate = "kept" if keep_leaks or part == "eval" else "dropped"
        report(f"train prompt in {part}", count, f"their {leaks} training items are {fate}")
    answers = defaultdict(set)
    for item in train:
        answers[item["prompt"]].add(item["answer"])
    report(
        "train twice", len(train) - len(answers), "training items with the prompt of an earlier one"
    )
    report(
        "train contradicts itself",
        sum(len(own) > 1 for own in answers.values()),
        "prompts with different answers in train.json",
    )
    report(
        "test twice",
        len(test) - len(prompts["test"]),
        "test items with the prompt of an earlier one",
    )
    for part in ("train", "test"):
        own = [item["answer"] for item in items[part]]
        of = f"of {len(own)} answers in {part}.json"
        report("empty answer", sum(not answer.strip() for answer in own), f"{of}")
        report("trailing space", sum(answer != answer.rstrip() for answer in own), f"{of}")
        if labels is not None:
            others = Counter(answer for answer in own if answer.strip() not in labels)
            named = ", ".join(repr(answer) for answer, _ in others.most_common(3))
            report("unknown label", others.total(), f"{of} are not in labels.json: {named}")
    lengths = {
        part: sum(len(item["prompt"]) for item in items[part]) / max(len(items[part]), 1)
        for part in ("train", "test")
    }
    if lengths["train"] < lengths["test"] / 2:
        report(
            "short training prompts",
            len(train),
            f"training prompts have {lengths['train']:,.0f} characters on average, test prompts "
            f"{lengths['test']:,.0f}: a reconstruction, not for reproducing a score or a time",
        )
    kept = [item for item in train if keep_leaks or item["prompt"] not in prompts["test"]]
    if not kept:
        raise DataError(
            f"the task {task!r} needs training items that are not in test.json, it has none: "
            "replace train.json"
        )
    return defects, kept
