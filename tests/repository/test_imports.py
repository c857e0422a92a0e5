"""Who may import whom: no circle between modules, and no import upwards.

benchmarks stands on baselines and analysis, baselines on treelora. Within benchmarks a room imports
those to the left of it in `ROOMS`. Imports inside functions and for annotations count too.
"""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Each package, and those that it may import.
BELOW = {
    "treelora": set(),
    "analysis": set(),
    "baselines": {"treelora"},
    "benchmarks": {"baselines", "treelora", "analysis"},
}
ROOMS = ["common", "scoring", "streams", "backbones", "costs", "runs", "experiments", "documents"]


def named(path: Path) -> str:
    """The module of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {named(path): path for package in BELOW for path in (ROOT / package).rglob("*.py")}


def imports(module: str) -> set[str]:
    """All that a module imports, by the longest name that is a module of ours or foreign."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}, line {node.lineno}: name the module in full"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in FILES else node.module)
    return found - {module}


GRAPH = {module: imports(module) for module in FILES}


def room(module: str) -> str | None:
    """The room of benchmarks that a module is in."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "benchmarks" and rest else None


ARROWS = [(a, b) for a, imported in GRAPH.items() for b in sorted(imported & FILES.keys())]


def none(pairs) -> None:
    """There is no such import."""
    assert not (found := "\n".join(f"{a} imports {b}" for a, b in pairs)), found


def test_modules_import_in_no_circle():
    ours = {module: imported & FILES.keys() for module, imported in GRAPH.items()}
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None


def test_no_package_imports_one_above_it():
    packages = ((a, b, a.partition(".")[0], b.partition(".")[0]) for a, b in ARROWS)
    none((a, b) for a, b, mine, its in packages if mine != its and its not in BELOW[mine])


def test_rooms_of_benchmarks_import_to_the_left():
    assert {room(module) for module in FILES} - {None} == set(ROOMS)
    pairs = ((a, b) for a, b in ARROWS if room(a) and room(b))
    none((a, b) for a, b in pairs if ROOMS.index(room(a)) < ROOMS.index(room(b)))


def test_analysis_is_light():
    heavy = {"torch", "timm", "transformers", "peft", "avalanche", "torchvision"}
    none(
        (module, name)
        for module in FILES
        for name in GRAPH[module]
        if module.partition(".")[0] == "analysis" and name.partition(".")[0] in heavy
    )


def test_what_stood_in_for_unused_packages_is_gone():
    """Or others would get it for the package; it is no module that was found anywhere."""
    from baselines.common import loop

    assert {"torchmetrics", "torchmetrics.functional", "wandb"} >= loop.UNUSED
    none(name for name in loop.UNUSED if name in sys.modules and not sys.modules[name].__spec__)
