"""Every `>>>` example runs, and every public class and function is documented."""

import doctest
import importlib
import inspect

import pytest

from tests.test_packaging import HOMES

MODULES = sorted(
    ".".join((name, *path.relative_to(home).with_suffix("").parts)).removesuffix(".__init__")
    for name, home in HOMES.items()
    for path in home.rglob("*.py")
    if path.name != "__main__.py"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.failed == 0


@pytest.mark.parametrize("name", [n for n in MODULES if hasattr(importlib.import_module(n), "__all__")])
def test_public_names_are_documented(name):
    module = importlib.import_module(name)
    public = {public_name: getattr(module, public_name) for public_name in module.__all__}
    bare = [key for key, value in public.items() if callable(value) and not inspect.getdoc(value)]
    assert bare == []
    # The package's docstring is its table of contents.
    unlisted = [key for key in public if key not in (module.__doc__ or "")]
    assert unlisted == []
