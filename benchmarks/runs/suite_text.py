"""A suite file's name and its text: YAML in which what is written is what is meant.

YAML alone keeps the last of two entries of one name without a word, reads `no:` and `1:` as a
truth value and a number where a name stands, 010 as 8, 1:30 as 90 and 2024-05-01 as a date, and
says nothing of it, and takes 1e-3 for text. Here names are text, a name stands once, and numbers
are decimal.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from analysis.text import quoted
from benchmarks.common.errors import DataError

MOST_BYTES = 1_000_000
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9_]*)",
    "tag:yaml.org,2002:float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
    r"|[-+]?(0|[1-9][0-9]*)[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
_OTHER = {*_NUMBERS, "tag:yaml.org,2002:timestamp"}


def check_name(name: str) -> None:
    """A suite's name becomes that of a folder, and a word of Snakemake's, which knows patterns."""
    harmless = all(
        c in "._+-(),'" or unicodedata.category(c)[0] in "LMN" or unicodedata.category(c) == "Zs"
        for c in name
    )
    if not harmless or name[:1] in ".-+" or name in ("runs", "specs") or len(name.encode()) > 150:
        raise DataError(
            "results are kept under a suite's name, which can have letters, digits, spaces and "
            ". _ + - ( ) , ' and must not begin with a dot or be runs or specs: rename it"
        )


def read(path: Path) -> Any:
    """The document of a suite file.

    Raises:
        DataError: one sentence that says why it cannot be read.
    """
    try:
        if not path.exists():
            raise DataError(f"the suite file {path} does not exist: check the path")
        if not path.is_file():
            raise DataError(f"{path} is no file: name a suite file")
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} has more than {MOST_BYTES:,} bytes: that is no suite file")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): correct that first") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start + 1}): save it in that encoding"
        ) from error
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply: that is no suite file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of 5,000 digits
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path} is not valid YAML: {reason}") from error


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OTHER]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_scalar_node(self, anchor: str | None) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in node.value):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"the text in line {line} has a character that no file can hold")
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for i, (key, value) in enumerate(node.value):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a name was expected in line {line}, but it is a collection")
            if key.value in lines:
                raise yaml.YAMLError(
                    f"{quoted(key.value)} stands twice, in lines {lines[key.value]} and {line}: "
                    f"give one of them another name, or delete it"
                )
            lines[key.value] = line
            if key.tag != _MERGE:
                text = yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark)
                node.value[i] = text, value
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Each name once, or merges of merges would multiply."""
        super().flatten_mapping(node)
        node.value = list({key.value: (key, value) for key, value in node.value}.values())


for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), list("-+.0123456789"))
