"""The folder tree is the architecture: rooms one above the other, small files, each thing in its own room."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from audiomill.models.family import families
from audiomill.tables.outputs import OUTPUTS

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("jobs/**/*.py")])
LAYERS = [
    ("config", "html"),
    ("audio", "text", "storage"),
    ("sources",),
    ("models",),
    ("speakers",),
    ("tables",),
    ("stages",),
    ("watch",),
    ("runs",),
    ("resynthesis", "exports", "voices", "streams", "inference"),
    ("ray",),
    ("report",),
    ("forecast",),
    ("train",),
    ("jobs",),
]
"""Folders from the ground up. Files of the root (errors, schema) lie under all of them."""
LOOSE = {"__init__.py", "__main__.py", "errors.py", "schema.py"}
MAX_FOLDER_FILES = 15
"""Besides `__init__.py`."""
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS, MIN_MEDIAN_LINES = 350, 50, 8, 110
NOT_NOUNS = {"found", "told", "heard", "said", "kept", "own"}
"""Participles that say nothing of what a variable holds."""
PROTOCOL = {"FAMILY", "EXAMPLES", "main", "run", "run_parts", "run_isolated", "publisher"}
"""Names that several files define because somebody calls them by name: families, jobs, workers, engines."""
MAY_REPEAT = {"__init__", "family", "model", "learner", "page"}
TORCH_ROOMS = (
    "audiomill.models", "audiomill.train.fit", "audiomill.tables.reader", "audiomill.tables.reader", "audiomill.runs.on_ray", "audiomill.resynthesis.quality",
)  # fmt: skip


def module(path: Path) -> str:
    """Import name of a file: what stands below its source root."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix(".__init__")


def room(name: str) -> str | None:
    """Top folder of a module; None for files of the root."""
    parts = name.split(".")
    if parts[0] == "audiomill_jobs":
        return "jobs"
    return parts[1] if len(parts) > 1 and any(parts[1] in layer for layer in LAYERS) else None


def level(name: str) -> int:
    return next((n for n, layer in enumerate(LAYERS) if room(name) in layer), -1)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def at_import(path: Path) -> Iterator[str]:
    """What a file imports when it is imported itself: outside functions and type checking."""
    for node in tree(path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_imports_go_down_and_never_across() -> None:
    for path in FILES:
        name = module(path)
        if room(name) is None and path.name in ("__init__.py", "__main__.py"):  # the front door imports when called
            continue
        for other in imports(path):
            if not other.startswith("audiomill") or room(other) is None:
                continue
            assert level(other) <= level(name), f"{name} imports {other} from above"
            is_neighbour = room(other) != room(name) and level(other) == level(name)
            assert not is_neighbour, f"{name} imports its neighbour {other}"


def test_modules_form_no_cycle() -> None:
    names = {module(path) for path in FILES}
    graph = {module(path): {n for n in imports(path) if n in names} - {module(path), "audiomill"} for path in FILES}

    def reach(start: str, at: str, seen: set[str]) -> bool:
        return any(n == start or (n not in seen and not seen.add(n) and reach(start, n, seen)) for n in graph[at])  # type: ignore[func-returns-value]

    assert [name for name in graph if reach(name, name, set())] == []


def test_the_root_is_no_corridor_and_folders_fit_one_look() -> None:
    assert {path.name for path in (ROOT / "pipeline/audiomill").glob("*.py")} == LOOSE
    top = {
        path.name for path in (ROOT / "pipeline/audiomill").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert top | {"jobs"} == {name for layer in LAYERS for name in layer}
    for folder, count in Counter(path.parent for path in FILES if path.name != "__init__.py").items():
        assert count <= MAX_FOLDER_FILES, f"{folder}: {count} files"
    lines = [path.read_text().count("\n") for path in FILES if path.name != "__init__.py"]
    assert statistics.median(lines) >= MIN_MEDIAN_LINES


def compared_strings(path: Path) -> Iterator[tuple[int, str]]:
    """String literals in comparisons and in `match` cases."""
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.Compare, ast.MatchValue)):
            for each in ast.walk(node):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield node.lineno, each.value


def test_nobody_outside_compares_the_name_of_a_family_or_a_table() -> None:
    families_, tables = {family.name for family in families()}, {output.name for output in OUTPUTS}
    for path in FILES:
        own = {*path.parts, path.stem}
        for line, text in compared_strings(path):
            assert text not in (families_ | tables) - own, f"{path}:{line} compares with {text!r}"


def test_what_families_import_late_is_there() -> None:
    for path in FILES:
        if path.name.endswith("family.py") or path.name.endswith("families.py"):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Late":
                    target = ast.literal_eval(node.args[0])
                    name, _, function = target.partition(":")
                    (defining,) = (each for each in FILES if module(each) == name)
                    names = {getattr(each, "name", "") for each in tree(defining).body}
                    assert function in names, f"{path}: {target} is not defined"


def test_families_do_not_import_each_other() -> None:
    names = {family.name for family in families()}
    for path in FILES:
        mine = module(path).split(".")[2:3]
        for other in imports(path):
            parts = other.split(".")
            if parts[:2] == ["audiomill", "models"] and len(parts) > 2 and parts[2] in names:
                assert mine == parts[2:3], f"{module(path)} imports {other}"


def test_options_are_made_in_config_alone_and_name_no_default_in_their_help() -> None:
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "option":
                assert room(module(path)) == "config", f"{path}:{node.lineno}"
                text = ast.unparse(node.args[1])
                assert "[default" not in text, f"{path}:{node.lineno}: say `otherwise=` instead"


def test_ray_is_imported_in_one_file() -> None:
    assert [module(p) for p in FILES if any(n.split(".")[0] == "ray" for n in imports(p))] == ["audiomill.runs.on_ray"]


def test_torch_stays_with_the_models() -> None:
    for path in FILES:
        if any(name.split(".")[0] in ("torch", "transformers") for name in imports(path)):
            assert module(path).startswith(TORCH_ROOMS), module(path)


def test_the_command_line_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from audiomill_jobs.main import JOBS, command_line; import click;"
        "[command_line.get_command(click.Context(command_line), name) for jobs in JOBS.values() for name in jobs];"
        "print([name for name in ('torch', 'ray', 'transformers', 'matplotlib', 'av') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_file_is_found_by_its_name() -> None:
    jobs = {path.stem for path in FILES if room(module(path)) == "jobs"}
    stems = Counter(path.stem for path in FILES if path.stem not in MAY_REPEAT | jobs)
    assert [stem for stem, count in stems.items() if count > 1] == []
    for stem in jobs - MAY_REPEAT:
        rooms = [room(module(path)) for path in FILES if path.stem == stem]
        assert len(set(rooms)) == len(rooms) <= 3, f"{stem}.py is in {rooms}"


def test_pages_have_one_shell() -> None:
    assert [path.name for path in FILES if "<!doctype" in path.read_text().lower()] == ["page.py"]


def written_names(path: Path, name: str) -> bool:
    """Whether a file calls `X.join(...name...).write(...)`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("write", "create"):
            inside = [each.value for each in ast.walk(node.func) if isinstance(each, ast.Constant)]
            if name in inside:
                return True
    return False


def test_what_is_done_is_said_in_one_place() -> None:
    assert [path.stem for path in FILES if written_names(path, "_SUCCESS")] == ["write"]
    callers = [
        path.stem
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ledger.commit"
    ]
    assert callers == ["write"]


def test_foreign_bytes_are_opened_in_the_decode_process_alone() -> None:
    """Audio is opened by `audio.decode`; who imports that, or what calls it, runs inside the worker."""
    openers = {
        "audiomill.audio.decode",
        "audiomill.audio.recording.cut_recording",
        "audiomill.stages.read.read_recording",
    }
    inside = {
        "audiomill.audio.mixing",
        "audiomill.audio.recording",
        "audiomill.stages.read",
        "audiomill.stages.decode_worker",
    }
    for path in FILES:
        used = imports(path) & openers
        # memory:// lives in this process alone: the sandbox reads it here.
        assert not used or module(path) in inside | {"audiomill.stages.sandbox"}, f"{module(path)}: {used}"


def is_command(node: ast.FunctionDef) -> bool:
    """Whether click calls a function: its parameters are the options of a job."""
    return any("click." in ast.unparse(each) or "command" in ast.unparse(each) for each in node.decorator_list)


def test_files_and_functions_stay_small() -> None:
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= MAX_FILE_LINES, path
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name}"
                names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len([name for name in names if name not in ("self", "cls")])
                assert count <= MAX_PARAMETERS or is_command(node), f"{path}:{node.lineno} {node.name}"


def public_names(path: Path) -> Iterator[str]:
    """Functions, classes and constants that a file defines at its top."""
    for node in tree(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_no_public_name_is_defined_twice() -> None:
    names = Counter(
        name
        for path in FILES
        for name in set(public_names(path))
        if not name.startswith("_") and name not in PROTOCOL and room(module(path)) != "jobs"
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_participles_are_no_names() -> None:
    for path in FILES:
        for node in ast.walk(tree(path)):
            name = None
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            elif isinstance(node, ast.arg):
                name = node.arg
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                name = node.name.strip("_").lower()
            assert name not in NOT_NOUNS, f"{path}:{getattr(node, 'lineno', 0)} {name}"


def test_the_glossary_names_files_that_use_its_terms() -> None:
    rows = re.findall(r"^\| (.+?) \| .+? \| \[.+?\]\(\.\./(.+?)\) \|$", (ROOT / "docs/glossary.md").read_text(), re.M)
    assert len(rows) >= 60
    for term, file in rows:
        assert term.lower() in (ROOT / file).read_text().lower(), f"{file} does not say {term!r}"


def test_names_that_say_nothing_are_not_used() -> None:
    for path in FILES:
        for node in ast.walk(tree(path)):
            name = getattr(node, "name", None) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else None
            assert name not in {"data", "item", "info", "utils", "helper", "manager", "process"}, f"{path}: {name}"
        assert path.stem not in {"utils", "helpers", "common", "misc"}
