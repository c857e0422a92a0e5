"""docs: which part of a library does this text describe?

Eight language tasks made of the docstrings of the pinned scientific packages, two tasks from each
of four packages, in the form of TRACE's multiple choice: the library's name, the beginning of a
docstring's prose, four parts of the library behind the letters A to D; the answer is a letter.
Within a task a letter always stands for the same part. From task to task parts that use similar
words share a letter, so that what is learnt of one task is of use for others and one model can
learn them all.

The docstrings are read from the source files with `ast`; no package is imported. Docstrings of
other parts and packages, none of which shares eight consecutive words with a prompt, are the
pre-training text. Each comes with the question about its own part, so that the model knows how to
be asked, as an instruction-tuned one does, and none of the tasks' parts: four of five without
options, the part's name as the answer, the fifth with options in an order drawn per item.

    stream: {name: docs, free_answers: true}

asks the tasks without options as well: a stress test, since a model must then say the words of the
present task and forgets to say those of earlier ones.
"""

import ast
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.errors import DataError
from benchmarks.common.files import write_bytes
from benchmarks.common.progress import Progress
from benchmarks.streams.common.base import LanguageOptions, LanguageStream

# sha256 of data.json followed by pretrain.json, with letters and with free answers
DIGESTS = {
    False: "6eb6e7daa0b6a552414e850fb9fa0859eda1ab58bef0eb714c7cb33e36e20f52",
    True: "1ea4591de9e4f5bad71fbdce290fcb52a4aa9e1b6ce6492e1ec64b8acc2b6531",
}

N_TRAIN, N_TEST = 480, 100  # items of a task, spread evenly over its answers
LETTERS = "ABCD"
QUESTION = "\nPart:"
OPTIONS_EVERY = 5  # so manieth question of the pre-training has options
MASK = "_"
MIN_WORDS, GOOD_WORDS = 8, 12  # shorter prose says too little; longer than GOOD_WORDS is preferred
MAX_WORDS, MAX_CHARACTERS = 45, 270  # of a prompt: at most about 90 pieces of a small byte BPE
PRETRAIN_WORDS = (12, 200)  # shortest and longest pre-training text
SAME_WORDS = 12  # texts that begin with the same words (letters only) are the same text
SHARED_WORDS = 8  # a run of words that no pre-training text shares with a prompt

# The digest holds for these versions only; they are the ones of requirements.lock.
PACKAGES = {
    "scipy": "1.17.1",
    "pandas": "3.1.1",
    "sympy": "1.14.0",
    "torch": "2.14.1",
    "numpy": "2.4.6",
    "scikit-learn": "1.9.1",
    "networkx": "3.6.1",
    "matplotlib": "3.11.2",
}

# task, "package-what": {part: its folders and files, as patterns}, in the order of the letters
TASKS = {
    "scipy-data": {
        "stats": "stats",
        "signal": "signal",
        "optimize": "optimize",
        "sparse": "sparse/*.py sparse/csgraph",
    },
    "scipy-space": {
        "special": "special",
        "spatial": "spatial cluster",
        "interpolate": "interpolate",
        "linalg": "linalg sparse/linalg",
    },
    "pandas-tables": {
        "frame": "core/frame.py",
        "files": "io",
        "indexes": "core/indexes",
        "arrays": "core/arrays",
    },
    "pandas-work": {
        "series": "core/series.py core/generic.py",
        "groups": "core/groupby core/window core/resample.py",
        "types": "core/dtypes",
        "engine": "core/internals core/computation core/array_algos core/ops "
        "core/algorithms.py core/nanops.py",
    },
    "sympy-discrete": {
        "combinatorics": "combinatorics",
        "physics": "physics",
        "solvers": "solvers",
        "polys": "polys",
    },
    "sympy-continuous": {
        "probability": "stats",
        "geometry": "geometry",
        "integrals": "integrals",
        "matrices": "matrices",
    },
    "torch-models": {
        "layers": "nn",
        "quantization": "ao",
        "graphs": "fx",
        "distributed": "distributed",
    },
    "torch-programs": {
        "cuda": "cuda",
        "export": "export _export",
        "functorch": "_functorch",
        "codegen": "_inductor/codegen",
    },
}
PRETRAIN = {  # package -> its folders and files
    "numpy": "_core fft lib linalg ma matrixlib polynomial",
    "sklearn": ".",
    "networkx": ".",
    "matplotlib": ".",
    "scipy": "constants fft fftpack integrate io ndimage odr",
    "pandas": "core/reshape core/strings core/tools core/indexers errors plotting tseries",
    "sympy": "assumptions calculus concrete core crypto functions logic ntheory printing "
    "series sets simplify tensor utilities vector",
    "torch": "autograd distributions jit onnx optim package utils",
}
NOT_THE_LIBRARY = {
    *("tests", "test", "testing", "conftest.py", "externals", "_vendor", "vendored"),
    *("__config__.py", "version.py", "_version.py"),
}


class Docs(LanguageStream):
    """Eight tasks of docstrings."""

    @dataclass(frozen=True, kw_only=True)
    class Options(LanguageOptions):
        """What a suite says of it.

        Attributes:
            free_answers: ask for the part's name, without options.
        """

        free_answers: bool | None = None

    content_options = ("free_answers",)
    n_tasks = len(TASKS)
    unit_names = list(TASKS)
    n_items = {"train": N_TRAIN * len(TASKS), "test": N_TEST * len(TASKS)}

    def fingerprint(self) -> str:
        """Digest of the content, known beforehand."""
        return DIGESTS[bool(self.options.free_answers)]

    def prepare(self, out: Path) -> dict:
        """Write data.json (the tasks) and pretrain.json (texts and questions) into `out`."""
        gc.disable()  # it would look for circles among millions of nodes of syntax, which have none
        try:
            tasks, pretrain = build(bool(self.options.free_answers))
        finally:
            gc.enable()
        # One item per line keeps a task readable and the file small.
        contents = {"data.json": _json(tasks), "pretrain.json": _json(pretrain)}
        found = hashlib.sha256(b"".join(contents.values())).hexdigest()
        if found != self.fingerprint():
            raise DataError(
                f"The docs stream needs the docstrings with digest {self.fingerprint()[:12]}, the "
                f"installed packages give {found[:12]} ({_differing_versions()}); "
                "install the versions of requirements.lock."
            )
        for name, content in contents.items():
            write_bytes(out / name, content)
        return {
            "source": "docstrings of " + ", ".join(f"{k} {v}" for k, v in PACKAGES.items()),
            "packages": PACKAGES,
            "n_bytes": sum(map(len, contents.values())),
            "n_pretrain": len(pretrain),
            "tasks": [{key: task[key] for key in ("name", "group", "parts")} for task in tasks],
        }


def build(free_answers: bool = False) -> tuple[list[dict], list[dict]]:
    """The tasks, and the pre-training texts with their questions."""
    seen: set[str] = set()  # one docstring often stands under several names
    progress = Progress("docs", len(TASKS) + len(PRETRAIN), "sources")
    tasks, shared = [], set()
    for name, parts in TASKS.items():
        texts = _task_texts(name, parts, seen)
        shared |= {run for part in texts.values() for text in part for run in _runs(text)}
        tasks.append(_task(name, texts, free_answers))
        progress.advance()
    answers = {part for parts in TASKS.values() for part in parts}
    pretrain: list[dict] = []
    for package, paths in PRETRAIN.items():
        found = []
        for part, text in _texts(package, paths):
            words = text.split()
            text = " ".join(words[: PRETRAIN_WORDS[1]])
            if len(words) >= PRETRAIN_WORDS[0] and _new(text, seen) and not _runs(text) & shared:
                found.append((part, text))
        parts = sorted({part for part, _ in found} - answers)
        for i, (part, text) in enumerate(found):
            item = {"text": text}
            if part in parts:
                options = _options(part, parts, text) if i % OPTIONS_EVERY == 0 else None
                item |= _item(package, _shorten(text, _mask(options or [part])), part, options)
            pretrain.append(item)
        progress.advance()
    return tasks, pretrain


def _task_texts(name: str, parts: dict[str, str], seen: set[str]) -> dict[str, list[str]]:
    """The shortened docstrings of each part, as many as the task takes, in an order for it."""
    package = name.partition("-")[0]
    mask, n = _mask(parts), (N_TRAIN + N_TEST) // len(parts)
    chosen = {}
    for part, paths in parts.items():
        # A word with any of the task's parts in it is masked, whichever is the right one: the mask
        # alone gives nothing away.
        texts = (_shorten(text, mask) for _, text in _texts(package, paths))
        kept = [text for text in texts if len(text.split()) >= MIN_WORDS and _new(text, seen)]
        if len(kept) < n:
            raise DataError(
                f"Task {name} of the docs stream needs {n} docstrings for {part!r}, the installed "
                f"{package} has {len(kept)}; install the versions of requirements.lock."
            )
        chosen[part] = sorted(kept, key=_draw)[:n]
    return chosen


def _task(name: str, texts: dict[str, list[str]], free_answers: bool) -> dict:
    package, options = name.partition("-")[0], None if free_answers else list(texts)
    items = [[_item(package, text, part, options) for text in texts[part]] for part in texts]
    n_train = N_TRAIN // len(texts)
    return {
        "name": name,
        "group": package,
        "metric": "exact",
        "parts": list(texts),
        "train": _interleave([part[:n_train] for part in items]),
        "test": _interleave([part[n_train:] for part in items]),
    }


def _item(package: str, text: str, part: str, options: list[str] | None) -> dict[str, str]:
    """A question: the answer is the option's letter, or the part itself where there are none."""
    prompt, answer = f"{package}: {text}", part
    if options:
        prompt += "\n" + " ".join(map(" ".join, zip(LETTERS, options, strict=True)))
        answer = LETTERS[options.index(part)]
    return {"prompt": prompt + QUESTION, "answer": answer}


def _options(part: str, parts: list[str], text: str) -> list[str]:
    """The part among three others of its package, drawn by the text."""

    def drawn(names: Iterable[str], what: str) -> list[str]:
        return sorted(names, key=lambda name: _sha256(f"{what} {name} {text}"))

    others = drawn((other for other in parts if other != part), "which")
    return drawn([part, *others[: len(LETTERS) - 1]], "where")


def _mask(words: Iterable[str]) -> re.Pattern:
    """Matches every word that holds one of these."""
    return re.compile(rf"\w*({'|'.join(words)})\w*", re.IGNORECASE)


def _draw(text: str) -> tuple[bool, str]:
    """Sort key: long enough prose first, otherwise an order that looks random."""
    return len(text.split()) < GOOD_WORDS, _sha256(text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _interleave(lists: list[list]) -> list:
    """One item of each list in turn, so that every prefix is balanced."""
    return [item for row in zip(*lists, strict=True) for item in row]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _new(text: str, seen: set[str]) -> bool:
    """Whether no earlier text begins with the same words; remembers it."""
    key = " ".join(_words(text)[:SAME_WORDS])
    if key in seen:
        return False
    seen.add(key)
    return True


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + SHARED_WORDS]) for i in range(len(words) - SHARED_WORDS + 1)}


def _shorten(text: str, mask: re.Pattern) -> str:
    """The first words, of which those that the mask matches are masked."""
    words = mask.sub(MASK, " ".join(text.split()[:MAX_WORDS])).split()
    while len(" ".join(words)) > MAX_CHARACTERS:
        words.pop()
    return " ".join(words)


def _texts(package: str, paths: str) -> Iterator[tuple[str, str]]:
    """Part and prose of every docstring below `paths` of an installed package, sorted by path.

    The part is the last folder of the path; below `.`, the first one of the file's name.
    """
    spec = importlib.util.find_spec(package)  # of a top-level name: finds it, runs nothing of it
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"The docs stream needs the package {package}, which is not installed; "
            "install requirements.lock."
        )
    root = Path(spec.submodule_search_locations[0])
    for path in paths.split():
        pattern = path if path.endswith(".py") else f"{path}/**/*.py"
        for name in sorted(file.relative_to(root).as_posix() for file in root.glob(pattern)):
            if not NOT_THE_LIBRARY.intersection(name.split("/")):
                part = Path(name if path == "." else path).parts[0 if path == "." else -1]
                source = (root / name).read_text(encoding="utf-8")
                for text in _docstrings(source):
                    yield part.removesuffix(".py").strip("_"), prose(text)


def _docstrings(source: str) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escape sequences in other people's strings
        tree = ast.parse(source)
    nodes: list[ast.AST] = [tree]
    for node in nodes:  # grows while it is read; statements only, which ast.walk cannot do
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
        for field in ("body", "orelse", "handlers", "finalbody"):
            nodes.extend(getattr(node, field, ()))


_UNDERLINE = re.compile(r"([-=~^*#])\1{2,}$")
_PROSE_SECTIONS = {"explanation", "description", "notes", "overview", "summary"}
_LIST_OR_CODE = re.compile(r">>>|\.\.\. |:\w+.*?:|@|\||\+--|[-*] |\w+ : |\w+ ?\(.*\): ")
_BLOCK_TITLE = re.compile(r"[A-Z][a-z]+( [a-z]+)?:$")  # Args:, Returns:, Example usage:
_MARKUP = [
    (re.compile(pattern), to)
    for pattern, to in (
        (r":math:`[^`]*`|\$[^$]*\$", ""),
        (r":[\w:.+-]+:`~?([^`<]*?)(\s*<[^`]*>)?`", r"\1"),
        (r"[`*]+|_+(?=\s|$)|%\(\w+\)s", ""),
    )
]


def prose(docstring: str) -> str:
    """The running text of a docstring on one line: no examples, parameter lists or markup.

    Reads the numpydoc, Google and plain reStructuredText conventions.
    """
    lines = docstring.expandtabs().splitlines()
    kept: list[str] = []
    in_prose, block = True, None  # block: indentation of the line that opened a skipped block
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if not text or _UNDERLINE.match(text):
            continue
        if block is not None and indent > block:
            continue
        block = None
        if _UNDERLINE.match(following.strip()):
            in_prose = text.lower() in _PROSE_SECTIONS or not kept
        elif in_prose and (
            text.startswith(".. ") or _BLOCK_TITLE.match(text) or _LIST_OR_CODE.match(text)
        ):
            block = indent
        elif in_prose:
            kept.append(text.removesuffix(":") if text.endswith("::") else text)
            if text.endswith("::"):
                block = indent
    joined = " ".join(kept)
    for pattern, replacement in _MARKUP:
        joined = pattern.sub(replacement, joined)
    return " ".join(joined.split())


def _json(rows: list) -> bytes:
    return json.dumps(rows, indent=0, ensure_ascii=False).encode() + b"\n"


def _differing_versions() -> str:
    different = []
    for name, version in PACKAGES.items():
        found = "missing"
        with suppress(importlib.metadata.PackageNotFoundError):
            found = importlib.metadata.version(name)
        if found.partition("+")[0] != version:
            different.append(f"{name} {found} instead of {version}")
    return ", ".join(different) or "of the pinned versions"
