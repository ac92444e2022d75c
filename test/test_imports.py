"""The house's plan: no room imports one above it (the table in ARCHITECTURE.md)."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src/dualview"
FREE = {"errors", "resources"}  # at the foot of the house
MAY_IMPORT = {
    "geometry": set(),
    "scene": {"geometry"},
    "ops": {"geometry"},
    "networks": {"geometry", "ops"},
    "detectors": {"geometry", "ops", "networks", "scene"},
    "supervision": {"geometry", "networks"},
    "evaluation": {"geometry", "scene", "detectors", "drawing"},
    "teachers": {"geometry", "scene", "ops", "networks", "detectors"},
    "drawing": {"geometry", "scene", "detectors"},
    "ros": {"geometry", "scene", "detectors"},
}


def imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; the house spells names out"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.startswith("dualview.")]
    return {p[1] for p in parts} & (set(MAY_IMPORT) | {"training", "teachers", "cli", "demo"})


def test_no_room_imports_upwards() -> None:
    faults = []
    for room, allowed in MAY_IMPORT.items():
        for path in (SOURCE / room).rglob("*.py"):
            for other in imported_rooms(path) - allowed - {room} - FREE:
                faults.append(f"{path.relative_to(SOURCE)} imports {other}")
    assert not faults, faults


def test_every_room_is_in_the_table() -> None:
    rooms = {p.parent.name for p in SOURCE.glob("*/__init__.py")}
    assert rooms - set(MAY_IMPORT) <= {"cli", "demo", "training", "teachers"}
