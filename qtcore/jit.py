"""Kernel compilation and its disk cache: how a kernel is compiled, and when its machine code is discarded.

Every kernel of qtcore is compiled by `@kernel`; nothing else imports numba. Two traps of numba's disk cache are closed here
(both measured, 2026-11):

- editing a callee in another file leaves the caller's cached machine code in use, silently wrong. The cache therefore lives in a
  folder named after a hash of all of qtcore's sources, the numba version and the NUMBA_* settings: any edit is a new, empty cache;
- the cache key ignores globals, so a function rebuilt with another callee would load the *original* machine code. `rebind`
  compiles without a cache.
"""

import hashlib
import os
import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def source_hash(package: str = "qtcore") -> str:
    """Hash every source file of a package (12 hex digits): the name under which results and machine code are kept."""
    spec, digest = find_spec(package), hashlib.sha256()
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"package must be one that can be imported, was {package!r}")
    folder = Path(spec.origin).resolve().parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def cache_folder() -> Path:
    """Folder of this version's machine code; `QTCORE_CACHE` moves the parent, else the user's cache folder is used."""
    if parent := os.environ.get("QTCORE_CACHE"):
        base = Path(parent)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches" / "qtcore"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "qtcore"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "qtcore"
    flags = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("NUMBA_") and k != "NUMBA_CACHE_DIR")
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return base / hashlib.sha256(" ".join([source_hash(), python, *flags]).encode()).hexdigest()[:16]


# numba reads the folder when it is imported, and looks it up again when a kernel is first compiled.
os.environ["NUMBA_CACHE_DIR"] = str(cache_folder())
import llvmlite.binding as llvm  # noqa: E402
import numba  # noqa: E402

numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]  # type: ignore[attr-defined]
COMPILED = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


def wide_features() -> str | None:
    """Name the features of this processor for numba so that vectors get all of its 512 bits; None leaves the choice to LLVM.

    LLVM keeps to 256 bits on every Intel processor, because before Ice Lake (the first with avx512vbmi2) wide vectors slow the clock
    down. After it they pay: a sweep in lanes takes a tenth less, the rest as long as before (2026-11). The arithmetic is the same, so are
    the bits.
    """
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know this platform
        return None
    return f"{features.flatten()},-prefer-256-bit" if features.get("avx512vbmi2") else None


if numba.config.CPU_FEATURES is None and numba.config.CPU_NAME is None and numba.config.ENABLE_AVX:  # type: ignore[attr-defined]
    numba.config.CPU_FEATURES = wide_features()  # type: ignore[attr-defined]


def kernel(function: Callable[..., Any] | None = None, *, inline: bool = False, parallel: bool = False, allocates: bool = False) -> Any:
    """Compile a function of numbers and arrays; exact IEEE arithmetic, no bounds checks, cached on disk.

    A kernel outside qtcore is compiled anew in every process: the cache knows nothing of an edit to what it calls in another file.

    `inline=True` pastes a scalar rule into its caller before compilation: a rule with many results otherwise stays a call and keeps
    the loop around it from becoming SIMD. `parallel=True` lets `prange` use every thread; the sweep alone does. `allocates=True`: the
    kernel makes arrays, so numba must count who holds them; a kernel outside qtcore may always. Without counting, an array handed to a
    callee costs nothing instead of 35 ns (one live bar 6.3 instead of 9.4 us, 2026-11). No wrapper for C: a tenth of the compile time.
    """
    if function is None:
        return lambda f: kernel(f, inline=inline, parallel=parallel, allocates=allocates)
    is_ours = function.__module__.startswith("qtcore.")
    counts = allocates or parallel or not is_ours
    options: dict[str, Any] = {"inline": "always" if inline else "never", "parallel": parallel, "_nrt": counts, "no_cfunc_wrapper": True}
    compiled = numba.njit(cache=is_ours, error_model="numpy", **options)(function)
    KERNELS[f"{function.__module__}.{function.__qualname__}"] = compiled
    return compiled


KERNELS: dict[str, Any] = {}
prange = numba.prange


def n_threads() -> int:
    """Threads that a parallel kernel uses."""
    return int(numba.get_num_threads())


def use_threads(n: int) -> None:
    """Let parallel kernels use `n` threads from now on; the variable NUMBA_NUM_THREADS would ask for machine code of its own."""
    numba.set_num_threads(n)


def rebind(function: Any, **replacements: Any) -> Any:
    """Rebuild a kernel with other callees: `rebind(qtcore.trade, govern_step=mine)`.

    The names are globals of the function's module. A kernel between `function` and the replaced callee is rebuilt too. Compiled
    without a disk cache, see the top of this module. Raises ValueError when a name is never reached.
    """
    used: set[str] = set()
    built = _rebind(function, replacements, used, {})
    if missing := sorted(set(replacements) - used):
        name = getattr(function, "__name__", str(function))
        raise ValueError(f"rebind({name}) can replace only what {name} calls, was {', '.join(missing)}")
    return built


def _rebind(function: Any, replacements: dict[str, Any], used: set[str], done: dict[int, Any]) -> Any:
    if id(function) in done:
        return done[id(function)]
    plain = getattr(function, "py_func", function)
    changed: dict[str, Any] = {}
    for name in _names(plain.__code__):
        value = plain.__globals__.get(name)
        if name in replacements:
            changed[name] = replacements[name]
            used.add(name)
        elif _is_kernel(value):
            rebuilt = _rebind(value, replacements, used, done)
            if rebuilt is not value:
                changed[name] = rebuilt
    if not changed:
        done[id(function)] = function
        return function
    copy = types.FunctionType(plain.__code__, {**plain.__globals__, **changed}, plain.__name__, plain.__defaults__)
    copy.__qualname__, copy.__doc__ = plain.__qualname__, plain.__doc__
    inline = getattr(function, "targetoptions", {}).get("inline", "never")
    options: dict[str, Any] = {"inline": inline, "_nrt": True, "no_cfunc_wrapper": True}  # `mine` may allocate
    built = numba.njit(cache=False, error_model="numpy", **options)(copy) if COMPILED else copy
    done[id(function)] = built
    return built


def _names(code: types.CodeType) -> tuple[str, ...]:
    return code.co_names


def _is_kernel(value: Any) -> bool:
    """Whether it is one of ours. With the JIT switched off a kernel is a plain function."""
    if not COMPILED:
        return isinstance(value, types.FunctionType) and value.__module__.startswith("qtcore")
    return hasattr(value, "py_func")
