"""Reads files of records, one JSON object per line, and the experiments that belong to no suite.

Records may come from a stranger. What is read here is checked here, so that nothing downstream
meets a value of another kind, a name that leads out of a folder, or a character that is a command.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import zlib
from pathlib import Path

from analysis import strict_json
from analysis.errors import DataError
from analysis.records.schema import SCHEMA, check, panel, task_names
from analysis.text import visible

PUBLISHED = Path(__file__).parents[2] / "benchmarks/published"
ENDING = ".runs.jsonl.xz"  # of a suite's published records
PACKINGS = {".gz": gzip.open, ".xz": lzma.open}
MOST_BYTES = 2**30  # of a packed file: a small one may unpack to more than the memory
DAMAGED = OSError, EOFError, zlib.error, lzma.LZMAError  # what unpacking says of a damaged file


def published() -> dict[str, Path]:
    """The files of published records, by the names of their suites."""
    files = sorted(PUBLISHED.glob(f"*{ENDING}"))
    return {file.name.removesuffix(ENDING): file for file in files}


def suite_name(suite: str) -> str:
    """Of a suite that is given by its name, or by the path of its file."""
    path = Path(suite)
    return path.stem if path.suffix in (".yaml", ".yml") else suite


def read(path: Path) -> tuple[list[dict], str]:
    """The checked records of a file, and the SHA-256 of the file.

    All text in them is `visible`.

    Raises DataError with one sentence for a file that is missing, empty, truncated, of another
    schema, not made by this project, or different from the digest in a SHA256SUMS beside it, and
    for what `schema.RECORD` does not allow.
    """
    content = read_bytes(path)
    numbered = enumerate(lines(path, content), start=1)
    records = [_parse(line, f"{path}, line {number}") for number, line in numbered]
    if not records:
        raise DataError(f"{path} holds no record: collect the suite again.")
    _check_together(path, records)
    return records, hashlib.sha256(content).hexdigest()


def read_bytes(path: Path) -> bytes:
    """The content of a plain file, which has the digest that a SHA256SUMS beside it lists."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no plain file: give a runs.jsonl.")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): give a runs.jsonl that "
            "`python -m benchmarks.runs.results collect` has written."
        ) from None
    _check_published(path, hashlib.sha256(content).hexdigest())
    return content


def lines(path: Path, content: bytes) -> list[bytes]:
    """Those of a file's content, which is packed as its name says; DataError if damaged."""
    try:
        return unpack(path, content).splitlines()
    except DAMAGED as error:
        raise DataError(f"{path} is damaged ({error}): restore it.") from None


def unpack(path: Path, content: bytes) -> bytes:
    """A file's content, which is packed as its name says; one of DAMAGED if it is not."""
    if path.suffix not in PACKINGS:
        return content
    with PACKINGS[path.suffix](io.BytesIO(content)) as file:
        unpacked = file.read(MOST_BYTES + 1)
    if len(unpacked) > MOST_BYTES:
        raise OSError(f"more than {MOST_BYTES:,} bytes unpacked")
    return unpacked


def read_experiment(path: Path, kind: str) -> dict:
    """The published file of an experiment that belongs to no suite, such as "regret"."""
    data = strict_json.parse(read_bytes(path), visible)
    if not isinstance(data, dict) or data.get("kind") != kind or data.get("schema") != SCHEMA:
        raise DataError(
            f"{path} is no {kind} file of schema {SCHEMA}: make it with `make experiments`."
        )
    return data


def _check_published(path: Path, digest: str) -> None:
    sums = path.parent / "SHA256SUMS"
    if not sums.is_file():
        return
    lines = [line.split(maxsplit=1) for line in sums.read_text(errors="replace").splitlines()]
    listed = {words[1]: words[0] for words in lines if len(words) == 2}
    expected = listed.get(path.name) or listed.get(f"*{path.name}")
    if expected is None:
        raise DataError(
            f"{path} is not listed in {sums}: published files are added with "
            "`python -m benchmarks.runs.results publish`."
        )
    if expected != digest:
        raise DataError(
            f"{path} has the digest {digest[:12]}, but {sums} lists {expected[:12]}: "
            "the file was changed after it was published, so restore it."
        )


def _parse(line: bytes, where: str) -> dict:
    try:
        record = strict_json.parse(line, visible)
    except ValueError as error:
        reason = getattr(error, "msg", None) or str(error)
        raise DataError(
            f"{where}: corrupt or truncated ({reason}); collect the suite again."
        ) from None
    check(record, where)
    return record


def _check_together(path: Path, records: list[dict]) -> None:
    suite = records[0]["suite"]["name"]
    seen: dict[tuple, int] = {}
    sizes: dict[str, int] = {}
    for number, record in enumerate(records, start=1):
        spec, key = record["spec"], record["key"]
        label, seed = spec["method"]["label"], spec["seed"]
        for what in ((label, key), (label, seed, panel(spec))):
            if what in seen:
                raise DataError(
                    f"{path}, line {number}: {label} with seed {seed} (key {key}) "
                    f"stands already on line {seen[what]}; collect the suite again."
                )
            seen[what] = number
        if (name := record["suite"]["name"]) != suite:
            raise DataError(
                f"{path}, line {number}: belongs to the suite {name!r}, but the file began with "
                "another one; collect one suite per file."
            )
        if record["status"] == "done":
            size = len(task_names(record))
            if sizes.setdefault(panel(spec), size) != size:
                raise DataError(
                    f"{path}, line {number}: has {size} tasks, but an earlier run on this stream "
                    f"and backbone has {sizes[panel(spec)]}; collect the suite again."
                )
