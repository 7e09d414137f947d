"""The environment below build/nocard: PyTorch's CUDA build, this environment's other packages, stand-in libraries."""

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.nocard.libraries import build
from vramplan.catalog.gpus import gpu

ROOT = Path(__file__).parents[2]
WORKING = ROOT / "build" / "nocard"
BRANCHES = Path(__file__).parent / "branches"
#: NVIDIA's packages of the runtime's headers, of the CUDA version that torch 2.11-2.13 are built with.
HEADERS = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-crt==13.0.88")
#: Ours, or replaced by another build.
_LEFT_OUT = {"vramplan", "torch", "pip", "setuptools", "triton"}
#: What a CUDA context takes is not modelled; a run's own memory must fit beside it.
CONTEXT = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python with PyTorch's CUDA build, and the libraries that stand for NVIDIA's."""

    python: Path
    libraries: Path

    def run(self, card: str, *arguments: str, padded: bool = False) -> int:
        """`python -m vramplan` with the arguments, on the emulated card; its exit code."""
        command = [str(self.python), "-W", "ignore", "-m", "vramplan", *arguments]
        return subprocess.run(command, env=self._variables(card, padded=padded), cwd=ROOT, check=False).returncode

    def ask(self, card: str, module: str, *arguments: str) -> str:
        """What `python -m module` prints on the emulated card."""
        command = [str(self.python), "-W", "ignore", "-m", module, *arguments]
        variables = self._variables(card, padded=False)
        return subprocess.run(command, env=variables, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout

    def _variables(self, card: str, *, padded: bool) -> dict[str, str]:
        target = gpu(card)
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.libraries),
            "PYTHONPATH": os.pathsep.join((str(BRANCHES), str(ROOT))),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "NOCARD_NAME": f"NVIDIA {target.title}",
            "NOCARD_CAPABILITY": target.compute_capability,
            "NOCARD_PROCESSORS": str(target.multiprocessors),
            "NOCARD_TOTAL": str(target.capacity),
            "NOCARD_CONTEXT": str(CONTEXT),
            "NOCARD_PADDED": str(int(padded)),
        }


def prepared(torch: str) -> Environment:
    """The environment of a version of torch; the first call downloads half a gigabyte and unpacks two."""
    home = WORKING / f"torch-{torch}"
    made = Environment(home / "bin" / "python", home / "stand-ins")
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        _pip(made.python, f"torch=={torch}", *_packages())
        _pip(made.python, "--target", str(home / "headers"), *HEADERS)
        site = next((home / "lib").glob("python3.*/site-packages"))
        _check(site, torch)
        _pip(made.python, _triton(site))
        users = [*(site / "torch" / "lib").glob("*.so*"), *(site / "bitsandbytes").glob("libbitsandbytes_cuda13*.so")]
        build(users, next((home / "headers").glob("nvidia/*/include")), made.libraries)
        (home / "ready").touch()
    return made


def _check(site: Path, torch: str) -> None:
    if not (site / "torch" / "lib" / "libtorch_cuda.so").exists():
        sys.exit(
            f"torch {torch} came as a CPU build; point pip at an index with CUDA builds "
            "(PIP_CONFIG_FILE=/dev/null ignores a local one)"
        )


def _triton(site: Path) -> str:
    """The release of Triton that this build of PyTorch wants, as a requirement."""
    torch = next(d for d in distributions(path=[str(site)]) if d.metadata["Name"] == "torch")
    return next(one.partition(";")[0] for one in torch.requires or () if one.startswith("triton"))


def _packages() -> list[str]:
    """What this environment has, version for version."""
    found = {d.metadata["Name"].lower(): d.version for d in distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name not in _LEFT_OUT]


def _pip(python: Path, *arguments: str) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([str(python), "-m", "pip", "install", *options, *arguments], check=True)
