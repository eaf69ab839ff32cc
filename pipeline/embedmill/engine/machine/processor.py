"""Model of the processor, and features for fast matrix products.

Sources: /proc/cpuinfo under Linux, registry and IsProcessorFeaturePresent under Windows, sysctl under macOS.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Iterable

# Linux's names, in the order of display.
_AVX = ("f16c", "fma", "avx", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16")
_AMX = ("amx_tile", "amx_int8", "amx_bf16")
_ARM = ("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2")
FEATURES = (*_AVX, *_AMX, *_ARM)

# Numbers of IsProcessorFeaturePresent (winnt.h). Windows has none for F16C, VNNI and AMX.
_WINDOWS_AVX = {"avx": 39, "avx2": 40, "avx512f": 41}
_WINDOWS_NEON = {"asimd": 19, "asimdhp": 67, "asimddp": 43, "i8mm": 66, "bf16": 68}
_WINDOWS_VECTORS = {"sve": 46, "sve2": 47, "sme": 70, "sme2": 71}
_WINDOWS_FEATURES = _WINDOWS_AVX | _WINDOWS_NEON | _WINDOWS_VECTORS

# Names below `hw.optional` of macOS, without `arm.`.
_DARWIN_FEATURES = {
    "f16c": "f16c",
    "fma": "fma",
    "avx1_0": "avx",
    "avx2_0": "avx2",
    "avx512f": "avx512f",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "AdvSIMD": "asimd",
    "FEAT_FP16": "asimdhp",
    "FEAT_DotProd": "asimddp",
    "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16",
    "FEAT_SME": "sme",
    "FEAT_SME2": "sme2",
}

# Implementers and parts of ARM cores in MIDR_EL1, as util-linux's lscpu lists them.
_IMPLEMENTERS = {
    0x41: "ARM",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}
_PARTS = {
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4C): "Cortex-X1C",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x51, 0x001): "Oryon",
    (0x51, 0x002): "Oryon",
}


def processor(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Return model and features; empty where unknown.

    `cpuinfo` is the text of /proc/cpuinfo, which only Linux has. Windows does not report every feature.
    """
    if sys.platform == "win32":
        import ctypes

        present = ctypes.WinDLL("kernel32").IsProcessorFeaturePresent
        return _windows_model(), windows_features(lambda number: bool(present(number)))
    if sys.platform == "darwin":
        return sysctl("-n", "machdep.cpu.brand_string"), darwin_features(sysctl("hw.optional"))
    return linux_processor(cpuinfo)


def linux_processor(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Return model and features common to all cores of /proc/cpuinfo."""
    blocks = [block for text in cpuinfo.split("\n\n") if "processor" in (block := _fields(text))]
    # ARM has no model name there: implementer and part of each kind of core take its place.
    models = [block.get("model name") or _arm_core(block) for block in blocks]
    flags = [set((block.get("flags") or block.get("Features", "")).split()) for block in blocks]
    common = set.intersection(*flags) if flags else set()
    return ", ".join(dict.fromkeys(filter(None, models))), _known(common)


def windows_features(present: Callable[[int], bool]) -> tuple[str, ...]:
    """Return the features for which `present` (IsProcessorFeaturePresent) is true."""
    return _known(name for name, number in _WINDOWS_FEATURES.items() if present(number))


def darwin_features(listing: str) -> tuple[str, ...]:
    """Return the features in the output of `sysctl hw.optional`."""
    # Lines like `hw.optional.arm.FEAT_BF16: 1`.
    pairs = (line.partition(":") for line in listing.splitlines())
    return _known(_DARWIN_FEATURES.get(key.rpartition(".")[2], "") for key, _, value in pairs if value.strip() == "1")


def sysctl(*arguments: str) -> str:
    """Run sysctl and return the output; empty after a failure."""
    command = ["/usr/sbin/sysctl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace").strip()


def _windows_model() -> str:
    if sys.platform == "win32":
        import winreg

        path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        except OSError:
            pass
    return platform.processor()


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _arm_core(block: dict[str, str]) -> str:
    try:
        implementer, part = int(block["CPU implementer"], 16), int(block["CPU part"], 16)
    except (KeyError, ValueError):
        return ""
    vendor = _IMPLEMENTERS.get(implementer, f"implementer {implementer:#04x}")
    return f"{vendor} {_PARTS.get((implementer, part), f'part {part:#05x}')}"


def _known(names: Iterable[str]) -> tuple[str, ...]:
    found = set(names)
    return tuple(name for name in FEATURES if name in found)
