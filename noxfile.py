"""One command a check: `nox -s NAME`; `nox -l` lists them, CONTRIBUTING.md says when to use which."""

from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "build", "serial"]
nox.options.reuse_existing_virtualenvs = True

CPP = sorted(str(path) for path in Path("cpp").rglob("*.?pp"))
BUILD_TOOLS = ("scikit-build-core>=0.11", "pybind11>=3.0", "cmake", "ninja", "numpy")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite on the installed package; arguments are pytest's."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, lint and types of everything."""
    session.install("ruff==0.17.5", "mypy==2.4.1", "clang-format==23.1.5", "nox")
    session.install("numpy", "ml_dtypes", "matplotlib", "safetensors")  # whose types mypy reads
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("python", "tools/check_readme.py")
    session.run("clang-format", "--dry-run", "--Werror", *CPP)


@nox.session
def build(session: nox.Session) -> None:
    """A build in which warnings are errors; clang-tidy; what each instruction-set level compiled to."""
    session.install(*BUILD_TOOLS, "clang-tidy==23.1.4")
    where = session.run("python", "-m", "pybind11", "--cmakedir", silent=True)
    folder = Path(session.create_tmp()).resolve()

    def configure(name: str, option: str) -> str:
        settings = ["SKBUILD_PROJECT_VERSION=0", f"pybind11_DIR={str(where).strip()}", option]
        session.run("cmake", "-S.", f"-B{folder / name}", "-GNinja", *(f"-D{s}" for s in settings))
        return str(folder / name)

    checked = configure("checked", "INSTEP_WERROR=ON")
    session.run("cmake", "--build", checked)
    session.run("python", "tools/check_levels.py", checked)
    tidied = configure("tidied", "INSTEP_OPENMP=OFF")  # clang-tidy lacks the compiler's omp.h
    quiet = ("--quiet", "--extra-arg=-Wno-deprecated-declarations")
    sources = [path for path in CPP if path.endswith(".cpp")]
    session.run("clang-tidy", *quiet, "-p", tidied, *sources)


@nox.session
def serial(session: nox.Session) -> None:
    """The test suite on a build without OpenMP."""
    session.install(".[test]", "--config-settings=cmake.define.INSTEP_OPENMP=OFF")
    session.run("pytest", *session.posargs)
