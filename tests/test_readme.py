"""The README speaks of things that exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[-1][:40])
def test_examples_are_python_and_import_what_there_is(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{node.module} has no {missing}"


def test_examples_are_found():
    assert len(BLOCKS) >= 6


def test_links_and_scripts_exist():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    scripts = re.findall(r"examples/\w+\.py", TEXT)
    assert [link for link in [*links, *scripts] if "://" not in link and not (ROOT / link).exists()] == []


def test_every_example_is_in_the_readme():
    scripts = [path.name for path in (ROOT / "examples").glob("[!_]*.py")]
    assert [name for name in scripts if f"`{name}`" not in TEXT and f"examples/{name}" not in TEXT] == []
