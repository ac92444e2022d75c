"""package.xml, CMakeLists.txt, msg/, pyproject.toml and the imports of the code say the same."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dualview

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
CMAKE = (REPOSITORY / "CMakeLists.txt").read_text()
MANIFEST = ElementTree.parse(REPOSITORY / "package.xml").getroot()
MESSAGES = sorted((REPOSITORY / "msg").glob("*.msg"))
OPTIONAL = {"spconv"}  # used where it is there, with a plain form beside it
INSTALLED_APART = {
    "nuscenes-devkit",
    "setuptools",
}  # tools/bootstrap.py says why; setup.py is run by setuptools itself


def manifest_names(*tags: str) -> set[str]:
    return {element.text or "" for tag in tags for element in MANIFEST.iter(tag)}


def base_requirements() -> list[Requirement]:
    lines = (
        line.split("#")[0].strip() for line in (REPOSITORY / "requirements.txt").read_text().splitlines()
    )
    return [Requirement(line) for line in lines if line]


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "tools" / "constraints.txt").read_text().splitlines()
    return {
        canonicalize_name(name): version
        for name, version in (line.split("==") for line in lines if not line.startswith("#"))
    }


def referenced_packages(text: str) -> set[str]:
    """Packages whose messages a .msg file uses."""
    fields = (line.split("#")[0].split() for line in text.splitlines())
    return {field[0].split("/")[0] for field in fields if field and "/" in field[0]}


def test_every_message_is_generated() -> None:
    assert MESSAGES
    assert sorted(re.findall(r"msg/(\w+)\.msg", CMAKE)) == sorted(path.stem for path in MESSAGES)


def test_packages_used_by_messages_are_declared_everywhere() -> None:
    used = set().union(*(referenced_packages(path.read_text()) for path in MESSAGES))
    listed = re.search(r"DEPENDENCIES ([\w\s]+)\)", CMAKE)
    assert listed and used == set(listed.group(1).split())
    assert used <= set(re.findall(r"find_package\((\w+) REQUIRED\)", CMAKE))
    assert used <= manifest_names("depend")


def test_cmake_finds_only_what_the_manifest_names() -> None:
    found = set(re.findall(r"find_package\((\w+) REQUIRED\)", CMAKE))
    assert found <= manifest_names("depend", "buildtool_depend", "test_depend")


def test_manifest_is_an_interface_package() -> None:
    assert manifest_names("member_of_group") == {"rosidl_interface_packages"}
    assert manifest_names("build_type") == {"ament_cmake"}
    assert "rosidl_default_runtime" in manifest_names("exec_depend", "depend")


def test_one_version_and_one_licence() -> None:
    assert manifest_names("version") == {dualview.__version__}
    assert manifest_names("license") == {PROJECT["project"]["license"]} == {"Apache-2.0"}
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()


def third_party_imports() -> dict[str, set[str]]:
    """Top-level module -> files that import it, over all our code."""
    found: dict[str, set[str]] = {}
    files = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "launch").glob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for root in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"dualview"}:
                found.setdefault(root, set()).add(str(path.relative_to(REPOSITORY)))
    return found


def test_every_import_is_declared() -> None:
    """A module is of a ROS package named in package.xml, or of a distribution named in requirements.txt or an extra that users choose."""
    ros = manifest_names("depend", "exec_depend")
    extras = PROJECT["project"]["optional-dependencies"]
    chosen = [Requirement(text) for name, texts in extras.items() if name != "dev" for text in texts]
    needed = [*base_requirements(), *chosen]
    declared = {canonicalize_name(requirement.name) for requirement in needed} | INSTALLED_APART
    distributions = importlib.metadata.packages_distributions()
    undeclared = {
        root: files
        for root, files in third_party_imports().items()
        if root not in ros
        and root not in OPTIONAL
        and not {canonicalize_name(name) for name in distributions.get(root, [])} & declared
    }
    assert not undeclared, f"add these to requirements.txt or package.xml: {undeclared}"


@pytest.mark.parametrize("group", ["base", "wheels", "dev", "build"])
def test_constraints_pin_every_requirement(group: str) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    groups = {
        "base": base_requirements(),
        "wheels": [Requirement(text) for text in extras["wheels"]],
        "dev": [Requirement(text) for text in extras["dev"]],
        "build": [Requirement(text) for text in PROJECT["build-system"]["requires"]],
    }
    pinned = pins()
    for requirement in groups[group]:
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None and requirement.name == "setuptools":
            continue  # comes with the virtual environment
        assert version is not None, f"{requirement.name} is not pinned in tools/constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} excludes the pinned {version}"
