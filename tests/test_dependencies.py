"""What the five packages import is declared, and what is advised can be installed.

`tests/installation` proves the rest: what only other packages import.
"""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OWN = {"search_space", "controller", "trainers", "nas", "experiments"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# Packages that experiments need and the tools of development do not bring along.
NOT_INSTALLED = {"skimage": "scikit-image"}
# Imported by other packages, which do not declare them: JAX, TensorFlow Datasets.
IMPORTED_BY_OTHERS = {"flatbuffers", "importlib-resources"}


def names(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


DECLARED = names(PROJECT["dependencies"])
OPTIONAL = {name for lines in EXTRAS.values() for name in names(lines)}
INSTALLED = importlib.metadata.packages_distributions()


def distributions(module):
    found = INSTALLED.get(module) or [NOT_INSTALLED.get(module, module)]
    return {canonicalize_name(name) for name in found}


def tree(path):
    return ast.parse(path.read_text())


def imports(path):
    """Full names of the modules that a file imports, in functions as well."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top(modules):
    return {name.split(".")[0] for name in modules}


FILES = sorted(path for name in OWN for path in (ROOT / name).rglob("*.py"))
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES}
IMPORTS = {module: imports(path) for module, path in MODULES.items()}


def third_party(module):
    return top(IMPORTS[module]) - OWN - set(sys.stdlib_module_names)


def undeclared(module):
    return {m for m in third_party(module) if not distributions(m) & DECLARED}


def test_what_is_declared_is_imported():
    imported = {d for m in MODULES for t in third_party(m) for d in distributions(t)}
    assert DECLARED - imported == IMPORTED_BY_OTHERS


def arguments_of(module, *functions):
    """The string literals that a module passes to functions of `optional`."""
    wanted = {f"optional.{name}" for name in functions}
    return {
        argument.value
        for node in ast.walk(tree(MODULES[module]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in wanted
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }


def importers(module):
    return [other for other, found in IMPORTS.items() if module in found]


def is_asked_for(package, module):
    """Whether `module` asks for `package` before use, or whoever imports it does.

    Scripts of `experiments` say what to install at their head instead.
    """
    if package in arguments_of(module, "missing"):
        return True
    if module.startswith("experiments."):
        advised = advice(ast.get_docstring(tree(MODULES[module])) or "")
        if {p for words in advised for p in installed_by(words)} & distributions(
            package
        ):
            return True
    above = importers(module)
    return bool(above) and all(is_asked_for(package, other) for other in above)


@pytest.mark.parametrize("module", [m for m in MODULES if undeclared(m)])
def test_what_is_not_declared_is_an_extras_and_asked_for(module):
    for package in undeclared(module):
        assert distributions(package) & OPTIONAL, f"{package} is in no extra"
        assert is_asked_for(package, module), f"{module} imports {package}"


def advice(text):
    """What each `pip install` in a text names."""
    found = re.findall(r"pip install((?: +(?:-\S+|'[^']+'|[\w.-]*\w))+)", text)
    return [[w.strip("'") for w in words.split() if w[0] != "-"] for words in found]


def installed_by(words):
    """The distributions that `pip install` gets for such words in a checkout."""
    found = set()
    for word in words:
        if match := re.fullmatch(r"\.\[([\w,-]+)\]", word):
            found |= {n for extra in match[1].split(",") for n in names(EXTRAS[extra])}
        else:
            found.add(canonicalize_name(Requirement(word).name))
    return found


def texts(module):
    """The strings of a module, each whole, without the fields of f-strings."""
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.JoinedStr):
            parts = [p for p in node.values if isinstance(p, ast.Constant)]
            yield "".join(str(part.value) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
# For Google Cloud, of which nothing here knows.
ELSEWHERE = {"google-api-python-client"}


def test_advice_names_packages_that_an_index_has():
    said = [text for module in MODULES for text in texts(module)]
    said += [path.read_text() for path in DOCUMENTS]
    named = [words for text in said for words in advice(text)]
    assert len(named) > 10, "else the pattern finds nothing"
    for words in named:
        assert installed_by(words) <= DECLARED | OPTIONAL | ELSEWHERE, words
    for module in MODULES:
        asked = arguments_of(module, "missing", "advice")
        assert {canonicalize_name(name) for name in asked} <= OPTIONAL, module
