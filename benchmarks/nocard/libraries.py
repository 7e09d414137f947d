"""Builds the libraries that stand for NVIDIA's: what is written by hand, and functions that say 0 for the rest."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

SOURCES = Path(__file__).parent / "stand_ins"
#: Written by hand, by the library's name up to its version.
_BY_HAND = {
    "libcuda": "cuda.c",
    "libcudart": "cudart.c",
    "libcublas": "cublas.c",
    "libcublasLt": "cublas.c",
    "libcudnn": "cudnn.c",
}
#: Symbols without a version, by the library that has them.
_PREFIXES = {
    "libcuda": r"cu(?!File|sparse|blas|fft|rand|dnn|pti)[A-Z]",
    "libcufile": "cuFile",
    "libcusparseLt": "cusparseLt",
    "libnccl": "nccl",
    "libnvshmem_host": "nvshmem",
}
_NVIDIA = re.compile(r"lib(cu|nccl|nvshmem|nvrtc|nvJit)")


def build(users: Iterable[Path], headers: Path, into: Path) -> None:
    """One library for each of NVIDIA's that the libraries `users` are linked with, and NVML's."""
    into.mkdir(parents=True, exist_ok=True)
    needed, versioned, bare = _wanted(users)
    for name in sorted({*filter(_NVIDIA.match, needed), "libcuda.so.1"}):
        stem = name.split(".so")[0]
        prefix = _PREFIXES.get(stem)
        versions = [v for v in versioned if v == name or (v.startswith("NVSHMEM") and stem.startswith("libnvshmem"))]
        symbols = {s for s in bare if prefix and re.match(prefix, s)}.union(*(versioned[v] for v in versions))
        _compile(name, symbols, versions, _BY_HAND.get(stem), headers, into)
    _compile("libnvidia-ml.so.1", set(), [], "nvml.c", headers, into)


def _wanted(users: Iterable[Path]) -> tuple[set[str], dict[str, set[str]], set[str]]:
    """Names of the libraries needed; the symbols wanted by version; those without one."""
    needed: set[str] = set()
    versioned: dict[str, set[str]] = defaultdict(set)
    bare: set[str] = set()
    for user in users:
        needed |= set(re.findall(r"\(NEEDED\).*\[(.*?)\]", _read("-d", user)))
        for line in _read("--dyn-syms", user).splitlines():
            columns = line.split()
            if len(columns) < 8 or columns[6] != "UND":
                continue
            symbol, _, version = columns[7].partition("@")
            if version:
                versioned[version.lstrip("@")].add(symbol)
            else:
                bare.add(symbol)
    return needed, versioned, bare


def _read(what: str, library: Path) -> str:
    return subprocess.run(["readelf", "-W", what, library], capture_output=True, text=True, check=True).stdout


def _compile(name: str, symbols: set[str], versions: list[str], by_hand: str | None, headers: Path, into: Path) -> None:
    """Functions that say 0 are weak, so that those written by hand win."""
    stubs, script = into / f"{name}.c", into / f"{name}.map"
    stubs.write_text(
        "".join(f"__attribute__((weak)) long {symbol}(void) {{ return 0; }}\n" for symbol in sorted(symbols))
    )
    exported = [f"{version} {{ {'' if place else 'global: *;'} }};" for place, version in enumerate(versions)]
    script.write_text("\n".join(exported) or "{ global: *; };")
    options = ["-shared", "-fPIC", "-O1", "-w", f"-I{headers}", f"-Wl,-soname,{name}", f"-Wl,--version-script={script}"]
    sources = [str(stubs), *([str(SOURCES / by_hand)] if by_hand else [])]
    subprocess.run(["gcc", *options, "-o", str(into / name), *sources, "-lpthread", "-ldl"], check=True)
