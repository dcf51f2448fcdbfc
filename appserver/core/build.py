"""The one description of how the core is compiled.

The wheel (`setup.py`), the C unit tests and the sanitizer builds all read it, so that there is one list of sources and
one set of flags. Run as a program it prints what a shell needs: `build.py cflags | ldflags | sources | headers`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

CORE = Path(__file__).resolve().parent

#: Layers in the order in which they may include each other: each only what stands before it (`report` is for all).
LAYERS = ("base", "report", "loop", "net", "http", "handler", "spawner")

SANITIZE = os.environ.get("CHEROKEE_SANITIZE", "")  #: e.g. "address,undefined"

CFLAGS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-O2",
    "-g",
    "-UNDEBUG",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wvla",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
    "-fno-strict-overflow",
    "-fno-plt",
]
HARDENING = ["-D_FORTIFY_SOURCE=2"]
SANITIZE_CFLAGS = ["-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
LDFLAGS = ["-Wl,-z,relro", "-Wl,-z,now"]
LIBRARIES: list[str] = []


def sources() -> list[str]:
    """Every C file of the core, relative to the project's top."""
    top = CORE.parent.parent
    found = [path for layer in LAYERS for path in sorted((CORE / layer).glob("*.c"))]
    found += sorted(CORE.glob("*.c"))
    return [str(path.relative_to(top)) for path in found if not path.name.startswith("_")]


def headers() -> list[str]:
    """Every header: a change in one rebuilds the core."""
    top = CORE.parent.parent
    return [str(path.relative_to(top)) for path in sorted(CORE.rglob("*.h"))]


def cflags(sanitize: str = SANITIZE) -> list[str]:
    """Compiler flags, with those of the sanitizers named in `sanitize` (comma separated) when there are any."""
    extra = [*SANITIZE_CFLAGS, f"-fsanitize={sanitize}"] if sanitize else HARDENING
    return [*CFLAGS, *extra, f"-I{CORE}"]


def ldflags(sanitize: str = SANITIZE) -> list[str]:
    """Linker flags to go with :func:`cflags`."""
    return [*LDFLAGS, *([f"-fsanitize={sanitize}"] if sanitize else [])]


#: The headers with a fenced part that cffi reads.
BORDER = (
    "base/error.h",
    "base/process.h",
    "http/limits.h",
    "net/tuning.h",
    "report/event.h",
    "report/incident.h",
    "server.h",
    "spawner/rlimits.h",
    "spawner/identity.h",
    "spawner/spawner.h",
)


def cdef() -> str:
    """The fenced parts of the border's headers: C declarations and cffi's are one text, so they cannot drift."""
    parts = []
    for name in BORDER:
        text = (CORE / name).read_text()
        found = re.findall(r"/\* >>> cdef \*/\n(.*?)/\* <<< cdef \*/", text, re.DOTALL)
        if not found:
            raise SystemExit(f"appserver/core/{name}: no '>>> cdef' fence")
        parts += found
    return re.sub(r"/\*.*?\*/", "", "\n".join(parts), flags=re.DOTALL)


def ffi() -> object:
    """The cffi builder that setuptools' `cffi_modules` asks for."""
    from cffi import FFI

    builder = FFI()
    builder.cdef(cdef())
    builder.set_source(
        "appserver.native._core",
        '#include "api.h"\n',
        sources=sources(),
        depends=headers(),
        include_dirs=[str(CORE.relative_to(CORE.parent.parent))],
        # cffi's own file has an entry point without a prototype; our files are checked for that by `make check`.
        extra_compile_args=[flag for flag in cflags() if flag != "-Wmissing-prototypes"],
        extra_link_args=ldflags(),
        libraries=LIBRARIES,
        py_limited_api=True,
    )
    return builder


if __name__ == "__main__":
    answers = {"cflags": cflags, "ldflags": ldflags, "sources": sources, "headers": headers}
    if len(sys.argv) != 2 or sys.argv[1] not in answers:
        raise SystemExit(f"usage: build.py {'|'.join(answers)}")
    print(" ".join(answers[sys.argv[1]]()))
