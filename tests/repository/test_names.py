"""Names that do not exist, also in lines that no test on a CPU executes."""

import ast
import importlib
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("treelora", "baselines", "benchmarks")
FILES = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]


def chain(node):
    """The names of a.b.c, or none if it does not start with a name."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def ours(module):
    """Other packages take long to import, and their lines are executed on a CPU."""
    return module.partition(".")[0] in ("torch", *ROOMS)


def imported(tree):
    """What the imports of a file bind to names, of torch and of our own modules."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in (name for name in node.names if ours(name.name)):
                module = importlib.import_module(name.name)
                first = name.name.partition(".")[0]
                bound[name.asname or first] = module if name.asname else sys.modules[first]
        elif isinstance(node, ast.ImportFrom) and ours(node.module):
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
                bound[name.asname or name.name] = getattr(module, name.name)
    return bound


def test_every_attribute_of_a_module_exists():
    """As torch.cuda.getdevice_name does not."""
    missing = []
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        bound = imported(tree)
        for node in ast.walk(tree):
            names = chain(node)
            found = bound.get(names[0]) if names else None
            for name in names[1:]:
                if isinstance(found, types.ModuleType) and not hasattr(found, name):
                    missing.append(f"{file.name}, line {node.lineno}: {ast.unparse(node)}")
                found = getattr(found, name, None)
    assert FILES and missing == []
