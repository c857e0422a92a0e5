"""From the files of a text task to its items.

A task is a folder of `train.json`, `test.json` and, if there is one, `eval.json`, each a list of
{"prompt", "answer"}. In O-LoRA's own folder, `CL_Benchmark/<type>/<task>/{train,dev,test}.json`,
they are lists of {"sentence", "label"} beside `labels.json`, and the instruction of each type is in
`configs/instruction_config.json`; what a model is asked is then made of these (`prompt`).
"""

from __future__ import annotations

import json
import reprlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.strict_json import unique_keys
from benchmarks.common.digests import digest_of
from benchmarks.common.errors import DataError, one_sentence
from benchmarks.streams.common.sources import Archive, Files, composed

INSTRUCTIONS = ("configs/instruction_config.json", "configs/instruction_config_cl.json")
PARTS = {  # of a task, by file name
    "train.json": "train",
    "eval.json": "eval",
    "dev.json": "eval",
    "test.json": "test",
    "labels.json": "labels",
}

Items = list[dict[str, str]]


def tasks_in(place: Files | Archive) -> dict[str, Task]:
    """Tasks by name: folders with prompts, and then O-LoRA's in a folder of their type."""
    found: dict[tuple, dict[str, str]] = defaultdict(dict)
    for name in place.names:
        *folders, file = name.split("/")
        if file in PARTS:
            found[tuple(folders)][PARTS[file]] = name
    tasks: dict[str, Task] = {}
    for folders, files in sorted(found.items(), key=lambda item: len(item[0])):
        if "train" not in files and "test" not in files:
            continue
        if len(folders) == 1:
            name = composed(folders[0])
            if name in tasks:
                raise DataError(
                    f"{place.place} holds the task {name!r} twice, once with letters and accents "
                    "apart: remove one"
                )
            tasks[name] = Task(name, place, files)
        elif len(folders) == 3 and folders[0] == "CL_Benchmark":
            tasks.setdefault(folders[2], Task(folders[2], place, files, folders[1]))
    return tasks


@dataclass(frozen=True)
class Task:
    """The files of a task.

    Attributes:
        files: by part, of `PARTS`; names in `place`.
        type: O-LoRA's, which says the instruction; None if items have prompts.
    """

    name: str
    place: Files | Archive
    files: dict[str, str]
    type: str | None = None

    @property
    def origin(self) -> str:
        return self.place.place.name if self.type is None else "O-LoRA's CL_Benchmark"

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
                    f"the task {self.name!r} needs {part}.json, {self.place.place} does not have "
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
            f"CL_Benchmark needs O-LoRA's instructions for {self.name!r}, {self.place.place} has "
            f"no {' or '.join(INSTRUCTIONS)}: copy it there from O-LoRA's repository"
        )

    def read(self, contents: Mapping[str, bytes]) -> tuple[dict[str, Items], list[str] | None]:
        """Items of train, test and eval (empty if there is none), and the labels if known."""
        labels = None
        if "labels" in self.files:
            labels = self._json(self.files["labels"], contents)
            if not isinstance(labels, list) or not all(map(_is_text, labels)):
                where = self.place.where(self.files["labels"])
                raise DataError(f"{where} needs a list of words: correct it")
        head = ""
        if self._instructed:
            head = f"{self._instruction(contents)}Option: {', '.join(labels)} \n"
        items: dict[str, Items] = {"eval": []}
        for part in ("train", "eval", "test"):
            if part not in self.files:
                continue
            pairs = self._pairs(self.files[part], contents)
            if not pairs and part != "eval":
                where = self.place.where(self.files[part])
                raise DataError(f"{where} needs items, it has none: add some")
            items[part] = [
                {"prompt": prompt(head, p, self.name) if self.type else p, "answer": answer}
                for p, answer in pairs
            ]
        return items, labels

    def _instruction(self, contents: Mapping[str, bytes]) -> str:
        config = self._json(self._instructions, contents)
        try:
            entries = config[self.type]
            texts = [e["instruction"] for e in entries if e["instruction_type"] == "zero-shot"]
            if _is_text(texts[0]):
                return texts[0]
        except (KeyError, IndexError, TypeError):
            pass
        raise DataError(
            f"{self.place.where(self._instructions)} needs a zero-shot instruction for "
            f"{self.type!r}: take the file of O-LoRA's repository"
        )

    def _pairs(self, name: str, contents: Mapping[str, bytes]) -> list[tuple[str, str]]:
        """The two texts of each item of a file."""
        fields = ("prompt", "answer") if self.type is None else ("sentence", "label")
        where, rows = self.place.where(name), self._json(name, contents)
        if self.type is not None and isinstance(rows, dict):  # as in Natural Instructions
            rows = rows.get("Instances")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(
                f"{where} needs a list of items with {' and '.join(fields)}: correct it"
            )
        for i, row in enumerate(rows):
            for field in fields:
                if not _is_text(row.get(field)):
                    raise DataError(
                        f"{where} needs the text {field!r} in each item, item {i + 1} has "
                        f"{reprlib.repr(row.get(field))}: correct it"
                    )
        return [(row[fields[0]], row[fields[1]]) for row in rows]

    def _json(self, name: str, contents: Mapping[str, bytes]):
        with one_sentence(f"{self.place.where(name)} is no valid JSON", "replace it"):
            return json.loads(contents[name], object_pairs_hook=unique_keys)


def prompt(head: str, sentence: str, task: str) -> str:
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


def _is_text(value: object) -> bool:
    """Whether this is text that can be written: no half of a character, as JSON may hold."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
