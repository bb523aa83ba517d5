"""Substitutes for CUDA's libraries, so that PyPI's torch is imported on a machine that has none of them.

That torch is built for CUDA and links with 4 GB of libraries. Here each is a few kilobytes: it has the functions that
torch asks for, and each of them returns `NO_DEVICE`. So torch finds no GPU and computes on the CPU.
Needs gcc, and readelf and nm of binutils.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from devcluster.shell import output

NO_DEVICE: Final = 100
"""CUDA's cudaErrorNoDevice."""
PROGRAMS: Final = ("gcc", "binutils")
"""Debian packages of the programs that this needs."""
_CUDA_LIBRARY: Final = re.compile(r"lib(cu|nv|nccl)")
_DRIVER: Final = "libcuda.so.1"
"""Of NVIDIA's driver, which torch opens when it needs it."""
_UNVERSIONED_LIBRARY: Final = "libnccl.so.2"
"""The one library whose symbols have no version, and so do not say where they are from."""
_CUDA_SYMBOL: Final = re.compile(
    "cuda|cu[A-Z]|cublas|cudnn|cufft|curand|cusparse|cusolver|nccl|nvrtc|nvshmem|nvtx|cupti|cuFile|__cuda"
)
_UNDEFINED: Final = "Uvw"
"""Types of `nm` for symbols that another library has."""

SymbolsByVersion = Mapping[str, set[str]]
"""Version -> names of symbols; the version is empty where symbols have none."""


@dataclass(slots=True)
class _Links:
    """What a set of libraries links with."""

    libraries: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    """Version of symbols -> the library that has it."""
    undefined: set[str] = field(default_factory=set)
    """Symbols, as NAME@VERSION or NAME."""
    defined: set[str] = field(default_factory=set)
    """Names of symbols."""


def write_cuda_libraries(packages: Path) -> list[str]:
    """Write the substitutes below `packages`, the folder that has torch; return their names.

    Raises:
        CommandError: torch's libraries cannot be read, or the compiler fails.
    """
    folder = packages / "nvidia" / "cu13" / "lib"  # On the library path that torch's libraries carry.
    folder.mkdir(parents=True)
    links = _read_links(sorted((packages / "torch" / "lib").glob("lib*.so")))
    names = sorted(one for one in links.libraries if _CUDA_LIBRARY.match(one) and one != _DRIVER)
    symbols = _assign_symbols(links, names)
    for name in names:
        _compile_library(folder / name, symbols[name])
    return names


def _read_links(libraries: list[Path]) -> _Links:
    links = _Links()
    for library in libraries:
        links.libraries |= set(re.findall(r"NEEDED.*\[(.+?)\]", output(["readelf", "-d", library])))
        links.sources |= _read_version_sources(output(["readelf", "-V", "-W", library]))
        for line in output(["nm", "-D", library]).splitlines():
            *_, kind, symbol = line.split()
            if kind in _UNDEFINED:
                links.undefined.add(symbol)
            else:
                links.defined.add(symbol.partition("@")[0])
    return links


def _read_version_sources(text: str) -> dict[str, str]:
    """Return which library has each version of symbols, from readelf's table of needed versions."""
    sources, library = {}, ""
    for line in text.splitlines():
        if found := re.search(r"File: (\S+)", line):
            library = found[1]
        elif library and (found := re.search(r"Name: (\S+)", line)):
            sources[found[1]] = library
    return sources


def _assign_symbols(links: _Links, names: list[str]) -> dict[str, dict[str, set[str]]]:
    symbols: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for symbol in links.undefined:
        name, _, version = symbol.replace("@@", "@").partition("@")
        if name in links.defined:
            continue
        if version and links.sources.get(version) in names:
            symbols[links.sources[version]][version].add(name)
        elif not version and _CUDA_SYMBOL.match(name):
            symbols[_UNVERSIONED_LIBRARY][version].add(name)
    return symbols


def _compile_library(target: Path, symbols: SymbolsByVersion) -> None:
    names = sorted(set().union(*symbols.values()))
    versions = {version: sorted(versioned) for version, versioned in symbols.items() if version}
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "source.c"), Path(scratch, "versions.map")
        # An empty file is no library.
        source.write_text(
            "int r1plus_substitute;\n" + "".join(f"int {n}(void) {{ return {NO_DEVICE}; }}\n" for n in names)
        )
        script.write_text("".join(f"{v} {{ global: {'; '.join(versions[v])}; }};\n" for v in sorted(versions)))
        options = ["-w", "-fno-builtin", "-nostdlib", "-shared", "-fPIC", "-Os", "-s", f"-Wl,-soname,{target.name}"]
        if versions:
            options.append(f"-Wl,--version-script={script}")
        output(["gcc", *options, "-o", target, source])
