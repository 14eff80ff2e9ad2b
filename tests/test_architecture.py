"""The folder tree is the architecture: imports go one way, Ray and torch stay in their rooms, files stay small."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("jobs/*.py")])
LAYERS = [
    ("pipeline", "audiomill.errors", "audiomill.schema", "audiomill.config.fields"),
    ("audiomill.config.search", "audiomill.config.run"),
    ("audiomill.config.stages",),
    ("audiomill.config.jobs", "audiomill.config.train", "audiomill.config.select", "audiomill.config.respell"),
    ("audiomill.config.forecast",),
    ("audiomill.audio", "audiomill.text", "audiomill.storage"),
    ("audiomill.stages.plan", "audiomill.stages.read", "audiomill.models"),
    (
        "audiomill.stages.cut",
        "audiomill.tables.result",
        "audiomill.tables.frames",
        "audiomill.stages.canary",
        "audiomill.stages.agreement",
        "audiomill.stages.batching",
    ),
    ("audiomill.stages.infer", "audiomill.tables.assemble", "audiomill.stages.sample", "audiomill.tables.reader"),
    ("audiomill.stages.write",),
    ("audiomill.run",),
    ("audiomill.report.trace", "audiomill.report"),
    ("audiomill.forecast",),
    ("audiomill.train",),
    ("jobs",),
]
APART = ("audiomill.audio", "audiomill.text", "audiomill.storage")
TORCH_TOO = ("audiomill.run.on_ray", "audiomill.run.kmeans", "audiomill.tables.reader")
"""Outside the models: threads and k-means on the device, and the dataset for training code."""
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(name: str) -> tuple[int, str]:
    """Layer number and the room's name, by the longest match."""
    matches = [
        (len(r), level, r) for level, rooms in enumerate(LAYERS) for r in rooms if name == r or name.startswith(f"{r}.")
    ]
    _, level, found = max(matches)
    return level, found


def test_imports_go_down_and_never_across() -> None:
    for path in FILES:
        if module(path) == "pipeline":  # the front door: names what is inside, imports it when called
            continue
        level, mine = room(module(path))
        for name in imports(path):
            if name.split(".")[0] not in ("pipeline", "jobs") or name == "pipeline":
                continue
            other_level, other = room(name)
            assert other_level <= level, f"{module(path)} imports {name} from above"
            assert not (mine in APART and other in APART and mine != other), (
                f"{module(path)} imports its neighbour {name}"
            )


def test_modules_form_no_cycle() -> None:
    names = {module(path) for path in FILES}
    graph = {
        module(path): {n for n in imports(path) if n in names and n != "pipeline"} - {module(path)} for path in FILES
    }

    def reach(start: str, at: str, seen: set[str]) -> bool:
        return any(n == start or (n not in seen and not seen.add(n) and reach(start, n, seen)) for n in graph[at])  # type: ignore[func-returns-value]

    assert [name for name in graph if reach(name, name, set())] == []


def test_ray_is_imported_in_one_file() -> None:
    assert [module(p) for p in FILES if any(n.split(".")[0] == "ray" for n in imports(p))] == ["audiomill.run.on_ray"]


def test_torch_stays_with_the_models() -> None:
    for path in FILES:
        if any(name.split(".")[0] in ("torch", "transformers") for name in imports(path)):
            assert module(path).startswith(("audiomill.models", "audiomill.train")) or module(path) in TORCH_TOO, (
                module(path)
            )


def test_files_and_functions_stay_small() -> None:
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= MAX_FILE_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name}"


def test_names_that_say_nothing_are_not_used() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "name", None) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else None
            assert name not in {"data", "item", "info", "utils", "helper", "manager", "process"}, f"{path}: {name}"
        assert path.stem not in {"utils", "helpers", "common", "misc"}
