"""What import-linter (.importlinter) cannot see: the doors, and the size of things."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("inference", "preprocess", "sdxl", "trainer")
DOOR_MAY_IMPORT = {
    "train.py": {"preprocess", "sdxl", "trainer"},
    "predict.py": {"inference", "sdxl"},
}
MAX_FILE_LINES = {"predict.py": 400, "train.py": 400}  # every input is a parameter
MAX_FUNCTION_LINES = {"train_loop": 100}


def sources() -> list[Path]:
    folders = (*PACKAGES, "bench", "samples", "script")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted([*files, ROOT / "predict.py", ROOT / "train.py"])


def imported(path: Path) -> Iterator[str]:
    """The first part of the name of every module that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what depends on what"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("door", DOOR_MAY_IMPORT)
def test_a_door_imports_only_its_wings(door: str) -> None:
    ours = {*PACKAGES, "bench", "predict", "samples", "script", "tests", "train"}
    assert set(imported(ROOT / door)) & ours <= DOOR_MAY_IMPORT[door]


def test_nobody_imports_a_door_but_what_reads_its_signature_or_measures_it() -> None:
    doors = {"train", "predict"}
    importers = [str(path.relative_to(ROOT)) for path in sources() if doors & set(imported(path))]
    assert set(importers) <= {"script/input_tables.py", "bench/serving/many_requests.py"}


def is_harmless(node: ast.stmt) -> bool:
    """Whether a statement at the top of a module does no work when it is imported."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        calls = [ast.unparse(n.func) for n in ast.walk(node.value) if isinstance(n, ast.Call)]
        return set(calls) <= {"logging.getLogger"}
    return False


@pytest.mark.parametrize("door", DOOR_MAY_IMPORT)
def test_a_door_does_nothing_when_it_is_imported(door: str) -> None:
    body = ast.parse((ROOT / door).read_text()).body
    assert [ast.unparse(node) for node in body if not is_harmless(node)] == []


@pytest.mark.parametrize("module", ["trainer.config", "sdxl.concept", "preprocess.manifest"])
def test_settings_concepts_and_manifests_leave_torch_unloaded(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert result.returncode == 0


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources()}
    assert {
        str(path.relative_to(ROOT)): length
        for path, length in lengths.items()
        if length > MAX_FILE_LINES.get(path.name, 300)
    } == {}


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """The lines of every function; of a door's only the body, since every input is a parameter."""
    is_door = path.parent == ROOT
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = node.body[0].lineno if is_door else node.lineno
            yield node.name, (node.end_lineno or start) - start + 1


def test_no_function_is_longer_than_60_lines() -> None:
    assert [
        f"{path.relative_to(ROOT)}:{name} has {length} lines"
        for path in sources()
        for name, length in function_lengths(path)
        if length > MAX_FUNCTION_LINES.get(name, 60)
    ] == []
