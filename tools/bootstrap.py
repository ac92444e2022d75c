"""Set up the development environment of this checkout: .venv with everything that `make demo` and `make test` need.

    python tools/bootstrap.py            do what is missing; a second call returns at once
    python tools/bootstrap.py --force    do every step again

Steps: check the system's tools (and install them with apt when root), make the virtual environment, install the pinned packages,
generate the messages and install them there, link the checkout's sources into it. What was done is stamped with a hash of what it was
made from, so a change of a message rebuilds only the messages. An interrupted call is taken up by the next one. Only Python's standard
library is used. The environment variable DUALVIEW_VENV puts the environment elsewhere.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import interfaces

REPOSITORY = interfaces.REPOSITORY
VENV = Path(os.environ.get("DUALVIEW_VENV") or REPOSITORY / ".venv").absolute()
STAMP = VENV / "dualview_bootstrap.json"
CONSTRAINTS = REPOSITORY / "tools" / "constraints.txt"

# nuscenes-devkit pins numpy<2 and shapely 2.0, yet works with the versions that everything else here needs, and names packages for map
# and notebook tools that we don't use: it goes in without its dependencies, and requirements.txt lists what it really imports.
WITHOUT_DEPENDENCIES = ("nuscenes-devkit",)


class SetupError(Exception):
    """Something is missing; the message says what and what to do."""


def say(text: str) -> None:
    print(f"[set-up {time.perf_counter() - START:5.1f} s] {text}", flush=True)


# --- what the steps are made from ---------------------------------------------------------------------------------------------


def digest(paths: Iterable[Path], *more: str) -> str:
    """SHA-256 over the names and contents of files, and over further strings."""
    total = hashlib.sha256("\0".join(more).encode())
    for path in sorted(paths):
        total.update(f"\0{path.relative_to(REPOSITORY)}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def package_inputs() -> str:
    files = [REPOSITORY / "requirements.txt", REPOSITORY / "pyproject.toml", CONSTRAINTS]
    return digest(files, str(sys.version_info[:2]), str(VENV), *WITHOUT_DEPENDENCIES)


def interface_inputs(packages: str) -> str:
    files = [
        REPOSITORY / "CMakeLists.txt",
        REPOSITORY / "package.xml",
        REPOSITORY / "cmake" / "ros_wheels.cmake",
    ]
    files += [REPOSITORY / "tools" / "interfaces.py", Path(__file__).resolve(), *REPOSITORY.glob("msg/*.msg")]
    files += [path for path in REPOSITORY.glob("compat/**/*") if path.is_file()]
    return digest(files, packages, str(REPOSITORY))


def read_stamp() -> dict[str, str]:
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def write_stamp(stamp: dict[str, str]) -> None:
    partial = STAMP.with_suffix(".partial")
    partial.write_text(json.dumps(stamp, indent=1))
    os.replace(partial, STAMP)


# --- system tools -------------------------------------------------------------------------------------------------------------


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_debian_packages() -> tuple[list[str], list[str]]:
    """Debian packages whose tools are not there: (those without which nothing works, those only for rendering synthetic drives)."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = "3" if Path(sys.executable).resolve().parent == Path("/usr/bin") else version
    needed = [tool for tool in ("gcc", "g++", "cmake", "make") if shutil.which(tool) is None]
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        needed.append(f"python{own}-dev")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        needed.append(f"python{own}-venv")
    rendering = []
    if not loads("libOSMesa.so.8"):  # MuJoCo renders with OSMesa or with EGL's software driver
        if not loads("libEGL.so.1"):
            rendering.append("libegl1")
        if not loads("libGLX_mesa.so.0") and not list(Path("/usr/lib").glob("*/dri/*swrast_dri.so")):
            rendering.append("libgl1-mesa-dri")
    return needed, rendering


def check_system() -> None:
    needed, rendering = missing_debian_packages()
    if not needed and not rendering:
        return
    names = " ".join([*needed, *rendering])
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing Debian packages: {names}")
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        commands = (
            ["apt-get", "-qq", "update"],
            ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *needed, *rendering],
        )
        for command in commands:
            result = subprocess.run(
                command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        needed, rendering = missing_debian_packages()
        if result.returncode and needed:
            raise SetupError(f"apt-get could not install {names}:\n{result.stdout[-2000:]}")
    if needed:
        raise SetupError(
            f"missing system packages. Run: sudo apt-get install {' '.join([*needed, *rendering])}   and then this again"
        )
    if rendering:
        say(
            f"no OpenGL driver for rendering synthetic drives; for those run: sudo apt-get install {' '.join(rendering)}"
        )


# --- Python packages ----------------------------------------------------------------------------------------------------------


def make_environment() -> None:
    if (VENV / "bin" / "python").exists():
        code = f"import pip, sys; assert sys.version_info[:2] == {sys.version_info[:2]}"
        if subprocess.run([VENV / "bin" / "python", "-c", code], capture_output=True).returncode == 0:
            return
        say(f"{VENV} is broken or of another Python version; making it anew")
    say(f"making the virtual environment {VENV} with Python {sys.version.split()[0]}")
    python = getattr(
        sys, "_base_executable", sys.executable
    )  # also when called from an activated environment
    result = subprocess.run([python, "-m", "venv", "--clear", VENV], text=True, capture_output=True)
    if result.returncode:
        raise SetupError(f"python -m venv failed:\n{result.stdout}{result.stderr}")


def requirements() -> list[str]:
    """requirements.txt, the extras `wheels` and `dev`, and what building the messages takes."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    lines = (
        line.split("#")[0].strip() for line in (REPOSITORY / "requirements.txt").read_text().splitlines()
    )
    return (
        [line for line in lines if line]
        + extras["wheels"]
        + extras["dev"]
        + project["build-system"]["requires"]
    )


def pip_install(arguments: list[str], what: str) -> None:
    """pip, with one line of progress now and then; its whole output goes to a log file."""
    log = VENV / "dualview_bootstrap_pip.log"
    command = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
    ]
    command += ["-c", str(CONSTRAINTS), *arguments]
    say(f"installing {what}")
    seen, shown = 0, time.perf_counter()
    # The wheels of ROS 2 mark the environment of the process that they run in; pip must start without such a mark.
    environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    with (
        open(log, "w") as output,
        subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            output.write(line)
            seen += line.startswith("Collecting ")
            phase = line.startswith("Installing collected")
            if phase or (
                line.startswith(("Collecting ", "  Downloading ")) and time.perf_counter() - shown > 5
            ):
                shown = time.perf_counter()
                say(
                    f"  unpacking {line.count(',') + 1} packages" if phase else f"  {seen} packages looked up"
                )
    if process.returncode:
        lines = log.read_text().splitlines()
        signs = (
            "NewConnectionError",
            "NameResolutionError",
            "Temporary failure in name",
            "timed out",
            "ProxyError",
            "Retrying",
        )
        unreachable = any(sign in line for line in lines for sign in signs)
        reason = "the package index can't be reached" if unreachable else "see the end of its output"
        remedy = (
            "Check the network, or set PIP_INDEX_URL to an index that you can reach"
            if unreachable
            else "Mend that"
        )
        tail = "\n".join(lines[-15:])
        raise SetupError(
            f"pip could not install {what}: {reason} (whole output: {log})\n{tail}\n\n{remedy}, and run this again: "
            "what has been fetched is not fetched again."
        )


def install_packages() -> None:
    make_environment()
    pip_install(requirements(), "Python packages (about 150; PyTorch is the largest)")
    for name in WITHOUT_DEPENDENCIES:
        pip_install(["--no-deps", name], name)


# --- messages and links -------------------------------------------------------------------------------------------------------


def site_packages() -> Path:
    return VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def install_interfaces() -> None:
    """Generate the messages into a staging folder, then move them into the environment, file by file."""
    with tempfile.TemporaryDirectory(prefix="dualview_interfaces_") as folder:
        stage = Path(folder) / "stage"
        packages = (*interfaces.COMPAT_PACKAGES, "dualview")
        say(f"generating and compiling the messages of {', '.join(packages)}")

        def build(package: str) -> None:
            options = ["-DDUALVIEW_INTERFACES_ONLY=ON"] if package == "dualview" else []
            interfaces.build(package, Path(folder) / package, VENV, VENV / "bin" / "python", stage, *options)

        with ThreadPoolExecutor(max_workers=2) as pool:  # configuring uses one core only
            list(pool.map(build, packages))
        staged = stage / VENV.relative_to("/")
        # Without an __init__.py, site-packages/dualview is no package of its own: `import dualview` finds the checkout's, which
        # extends its path to this folder (src/dualview/__init__.py).
        (staged / site_packages().relative_to(VENV) / "dualview" / "__init__.py").unlink()
        for name in packages:
            shutil.rmtree(site_packages() / name / "msg", ignore_errors=True)
        interfaces.move_tree(staged, VENV)


def link_checkout() -> None:
    """Let the environment use the checkout's sources, launch files, configuration and models where they lie."""
    for stale in (site_packages() / "dualview").glob("__init__.py"):
        stale.unlink()
    (site_packages() / "dualview_development.pth").write_text(f"{REPOSITORY / 'src'}\n")
    share = VENV / "share" / "dualview"
    for name in ("launch", "config", "models"):
        link = share / name
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(REPOSITORY / name)
    for script, target in (("dualview", VENV / "bin"), ("dualview_node", VENV / "lib" / "dualview")):
        target.mkdir(parents=True, exist_ok=True)
        text = (
            (REPOSITORY / "scripts" / script)
            .read_text()
            .replace("#!/usr/bin/env python3", f"#!{VENV / 'bin' / 'python'}", 1)
        )
        partial = target / f".{script}.partial"
        partial.write_text(text)
        partial.chmod(0o755)
        os.replace(partial, target / script)


def check_imports() -> None:
    """One process that imports what the steps before have installed: a broken environment shows here, not in the middle of a run."""
    code = "import rclpy, torch, dualview.msg, tf2_msgs.msg, vision_msgs.msg; print(torch.__version__)"
    environment = {
        k: v for k, v in os.environ.items() if k not in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONPATH")
    }
    result = subprocess.run(
        [VENV / "bin" / "python", "-c", code], env=environment, cwd="/", text=True, capture_output=True
    )
    if result.returncode:
        raise SetupError(
            f"the environment does not work; `make clean-venv` and a new try may help:\n{result.stderr[-2000:]}"
        )
    say(f"rclpy, messages and torch {result.stdout.strip()} import")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--force", action="store_true", help="do every step again")
    forced = parser.parse_args().force
    packages = package_inputs()
    wanted = {"packages": packages, "interfaces": interface_inputs(packages)}
    if read_stamp() == wanted and (VENV / "bin" / "python").exists() and not forced:
        return 0
    VENV.parent.mkdir(parents=True, exist_ok=True)
    with open(VENV.parent / f"{VENV.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this environment is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = {} if forced else read_stamp()
        if stamp == wanted:
            return 0
        check_system()
        if stamp.get("packages") != wanted["packages"]:
            install_packages()
            write_stamp({"packages": packages})
        install_interfaces()
        link_checkout()
        check_imports()
        write_stamp(wanted)
    say("ready")
    return 0


if __name__ == "__main__":
    START = time.perf_counter()
    try:
        sys.exit(main())
    except (SetupError, interfaces.BuildError) as error:
        print(f"set-up: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("set-up: interrupted; run it again to go on", file=sys.stderr)
        sys.exit(130)
