"""What a user installs: the package list is complete, the wheel imports, the import is light."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOMES = {"neuralop_kit": ROOT / "neuralop_kit", "neuralop_kit.solvers": ROOT / "solvers"}
HOMES["neuralop_kit.datasets"] = ROOT / "datasets"

# A package may import from those further left, and from itself; `neuralop_kit` is the light root.
LAYERS = (
    {"solvers"},
    {"datasets"},
    {"layers", "constraints", "neural_ode", "optim"},
    {"training", "models", "convert"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# Inside one rank these may look at each other: a trainer knows no model, but conversion assembles models.
SAME_RANK = {("convert", "models"), ("neural_ode", "layers"), ("constraints", "layers"), ("optim", "layers")}


def packages_on_disk() -> set[str]:
    """Every folder with an ``__init__.py``, by the name under which it is installed."""
    found = set()
    for name, home in HOMES.items():
        for init in home.rglob("__init__.py"):
            parts = init.parent.relative_to(home).parts
            found.add(".".join((name, *parts)))
    return found


def sources() -> list[tuple[str, Path]]:
    """(room, file) of every module of the installed package; the room of the root modules is the empty string."""
    rows = []
    for name, home in HOMES.items():
        for path in sorted(home.rglob("*.py")):
            inside = path.relative_to(home).parts
            room = name.split(".")[1] if "." in name else (inside[0] if len(inside) > 1 else "")
            rows.append((room, path))
    return rows


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this package that a file imports, also inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("neuralop_kit.")}
    return rooms & set(RANK)


def points_upward(room: str, target: str) -> bool:
    if room in ("", target) or (room, target) in SAME_RANK:
        return False
    return RANK[target] >= RANK[room]


def test_package_list_is_complete():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_import_points_downward():
    arrows = {f"{path.relative_to(ROOT)} -> {t}" for room, path in sources() for t in imported_rooms(path)
              if points_upward(room, t)}  # fmt: skip
    assert not arrows


@pytest.mark.parametrize(("room", "target"), [("solvers", "layers"), ("layers", "models"), ("models", "training")])
def test_an_upward_arrow_would_be_seen(room, target):
    assert points_upward(room, target)
    assert not points_upward(target, "solvers") or target == "solvers"


def test_no_library_file_is_long():
    lengths = {path.relative_to(ROOT): path.read_text().count("\n") for _, path in sources()}
    assert {path: n for path, n in lengths.items() if n > 350} == {}


def run_python(code: str, *, path: Path | None = None) -> str:
    """Output of a fresh interpreter; ``path`` stands in for site-packages, before an editable install."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=path or ROOT.anchor, env=environment,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_editable_install_imports_every_module():
    modules = ", ".join(sorted(packages_on_disk()))
    assert run_python(f"import {modules}; print('ok')") == "ok"


@pytest.mark.slow
def test_wheel_imports_and_holds_every_file(tmp_path):
    source = tmp_path / "source"
    for name in ("neuralop_kit", "solvers", "datasets"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    # Built from a copy: a build in the tree would leave its own folders there, and find those of earlier ones.
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    expected = set()
    for name, home in HOMES.items():
        expected |= {(Path(*name.split(".")) / path.relative_to(home)).as_posix() for path in home.rglob("*.py")}
    assert expected | {"neuralop_kit/py.typed"} <= names
    assert not {name for name in names if name.split("/")[0] in ("tests", "solvers", "datasets", "benchmarks")}
    modules = ", ".join(sorted(packages_on_disk()))
    code = f"import {modules}, neuralop_kit.solvers as s; print(s.__file__)"
    assert run_python(code, path=tmp_path / "site").startswith(str(tmp_path))


def test_root_import_is_light():
    heavy = "{'torch', 'numpy', 'scipy', 'h5py', 'matplotlib', 'torch_harmonics', 'cvxpy'}"
    assert run_python(f"import sys, neuralop_kit; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_root_names_are_reachable():
    code = "import neuralop_kit as nk; print(all(hasattr(nk, name) for name in nk.__all__))"
    assert run_python(code) == "True"


def test_optional_dependencies_are_not_imported_by_the_core():
    modules = ", ".join(sorted(packages_on_disk()))
    extras = "{'torch_harmonics', 'cvxpy', 'cvxpylayers', 'matplotlib', 'tyro', 'neuralop', 'tensorboard'}"
    assert run_python(f"import sys, {modules}; print(sorted({extras} & set(sys.modules)))") == "[]"
