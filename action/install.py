"""First step of the action: a virtual environment with vramplan in it, in front of the PATH.

An environment of its own, so that nothing of the job's Python changes. PyTorch comes from its index of CPU builds: the
trace needs no GPU, and the builds for one are twenty times as large.
"""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
#: What a version may be (PEP 440, loosely): nothing that pip could read as an option, a path or an address.
VERSION = re.compile(r"\d[\w.!+-]*", re.ASCII)


def main() -> int:
    """Install what the inputs ask for; 2 when they are wrong, else pip's exit code."""
    version, constraints = os.environ["INPUT_VERSION"].strip(), os.environ["INPUT_CONSTRAINTS"].strip()
    if version and not VERSION.fullmatch(version):
        print(f"::error title=vramplan::version: {version!a} is not a version, such as 0.1.0")
        return 2
    if constraints and not Path(constraints).is_file():
        print(f"::error title=vramplan::constraints: there is no file {constraints!a}")
        return 2
    folder = Path(os.environ["RUNNER_TEMP"], "vramplan-venv")
    venv.create(folder, with_pip=True, clear=True)
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    trace = os.environ["INPUT_ENGINE"].strip() == "trace"
    for arguments in wanted(version, trace=trace):
        code = pip(scripts / "python", [*arguments, *(["--constraint", constraints] if constraints else [])])
        if code:
            return code
    with Path(os.environ["GITHUB_PATH"]).open("a", encoding="utf-8") as file:
        file.write(f"{scripts}\n")
    return 0


def wanted(version: str, *, trace: bool) -> list[list[str]]:
    """Arguments of each call of pip."""
    extra = "[measure]" if trace else ""
    own = Path(os.environ["GITHUB_ACTION_PATH"])
    vramplan = [f"vramplan{extra}=={version}"] if version else [f"{own}{extra}"]
    return [*([["torch", "--index-url", TORCH_INDEX]] if trace else []), vramplan]


def pip(python: Path, arguments: list[str]) -> int:
    """Exit code of `pip install`."""
    quiet = ["--quiet", "--disable-pip-version-check"]
    return subprocess.run([str(python), "-m", "pip", "install", *quiet, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
