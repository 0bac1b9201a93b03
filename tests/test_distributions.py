"""What is released: three distributions, complete, and the same bytes whoever builds them."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "pyproject.toml", *sorted(ROOT.glob("cases/*/pyproject.toml")))
# Name as in names of files -> folder; the library first, then the cases.
PROJECTS = {
    str(about["project"]["name"]).replace("-", "_"): page.parent
    for page in PAGES
    if page.exists() and (about := tomllib.loads(page.read_text(encoding="utf-8")))
}
ADDRESS = "https://github.com/memento-replay/memento"
pytestmark = pytest.mark.skipif(len(PROJECTS) < 3, reason="needs the whole checkout")


def settings(project: Path) -> dict:
    return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))


def build(project: Path, to: Path) -> dict[str, bytes]:
    """Wheel and source of a project: file name -> content."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1764374400"}
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(to)]
    done = subprocess.run(
        words, cwd=project, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in to.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, bytes]:
    pytest.importorskip("hatchling")
    files: dict[str, bytes] = {}
    for name, project in PROJECTS.items():
        files |= build(project, tmp_path_factory.mktemp(name))
    return files


def wheel(built: dict[str, bytes], name: str, folder: Path) -> zipfile.ZipFile:
    (file,) = [file for file in built if file.startswith(f"{name}-") and file.endswith(".whl")]
    path = folder / file
    path.write_bytes(built[file])
    return zipfile.ZipFile(path)


def unpacked(built: dict[str, bytes], name: str, folder: Path) -> Path:
    (file,) = [file for file in built if file.startswith(f"{name}-") and file.endswith(".tar.gz")]
    path = folder / file
    path.write_bytes(built[file])
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / file.removesuffix(".tar.gz")


@pytest.mark.slow
def test_a_source_builds_the_same_again(built, tmp_path):
    """All three from the one source of the checkout, at another time and place."""
    again: dict[str, bytes] = {}
    source = unpacked(built, "memento_replay", tmp_path)
    for path in source.rglob("*"):
        os.utime(path, (10**9, 10**9))
    for name, project in PROJECTS.items():
        again |= build(source / project.relative_to(ROOT), tmp_path / "again" / name)
    assert set(again) == set(built)
    assert len(again) == 6
    for name, content in built.items():
        assert again[name] == content, f"{name} differs"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_source_has_all_that_git_has(built, tmp_path):
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode or not done.stdout:
        pytest.skip("no git repository")
    source = unpacked(built, "memento_replay", tmp_path)
    there = {str(path.relative_to(source)) for path in source.rglob("*")}
    tracked = {name for name in done.stdout.splitlines() if (ROOT / name).exists()}
    assert sorted(tracked - there) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTS)
def test_a_wheel_holds_the_package_alone(built, tmp_path, name):
    project = PROJECTS[name]
    package = "memento" if project == ROOT else name
    with wheel(built, name, tmp_path) as archive:
        names = set(archive.namelist())
        about = next(entry for entry in names if entry.endswith("/METADATA"))
        facts = email.message_from_bytes(archive.read(about))
        text = str(facts.get_payload())
    tops = {entry.partition("/")[0] for entry in names}
    assert tops == {package, about.partition("/")[0]}
    code = {
        f"{package}/{path.relative_to(project / 'src' / package).as_posix()}"
        for path in (project / "src" / package).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc")
    }
    assert {entry for entry in names if entry.startswith(f"{package}/")} == code
    assert f"{package}/py.typed" in names
    assert any(entry.endswith("/licenses/LICENSE") for entry in names)
    assert facts["Version"] == settings(ROOT)["project"]["version"]
    assert facts["License-Expression"] == "MIT"
    assert len(text) > 200
    links = dict(line.split(", ") for line in facts.get_all("Project-URL"))
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= set(links)
    assert all(link.startswith(ADDRESS) for link in links.values())


def test_the_three_are_of_one_version():
    version = settings(ROOT)["project"]["version"]
    for name, project in PROJECTS.items():
        about = settings(project)["project"]
        assert about["version"] == version
        own = [text for text in about["dependencies"] if text.startswith("memento-replay")]
        assert all(text.endswith(f"=={version}") for text in own), name
        assert about["requires-python"] == ">=3.11"
        assert about["classifiers"][-1] == "Typing :: Typed"


def test_the_version_is_told_alike():
    version = settings(ROOT)["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = [line for line in changes.splitlines() if line.startswith("## [0")]
    date = citation.partition('date-released: "')[2].partition('"')[0]
    assert released[0] == f"## [{version}] - {date}"
    assert changes.index("## [Unreleased]") < changes.index(released[0])


def test_files_that_services_read_are_well_formed():
    yaml = pytest.importorskip("yaml")
    pages = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert [page.stem for page in pages] == ["docs", "release", "test"]
    for page in pages:
        flow = yaml.safe_load(page.read_text(encoding="utf-8"))
        assert flow[True], f"{page.name} is never started"  # YAML 1.1 reads `on` so
        assert flow["permissions"] == {"contents": "read"}, page.name
        for name, job in flow["jobs"].items():
            assert job["timeout-minutes"] <= 90, f"{page.name}: {name}"
            assert set(job.get("needs", "").split()) <= set(flow["jobs"])
            for step in job["steps"]:
                assert ("uses" in step) != ("run" in step), f"{page.name}: {name}: {step}"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [hook["id"] for hook in hooks["repos"][0]["hooks"]] == ["ruff", "ruff-format", "mypy"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "title", "message", "authors", "references"} <= set(citation)


def test_workflows_make_what_there_is_to_make():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in (ROOT / ".github" / "workflows").glob("*.yml"):
        for line in page.read_text(encoding="utf-8").splitlines():
            _, run, words = line.partition("run: make ")
            if run:
                assert f"\n{words.split()[0]}:" in makefile, line


def test_every_lowest_version_is_known():
    """`make floors` holds each dependency at the lowest version that its range allows."""
    extras = settings(ROOT)["project"]["optional-dependencies"]
    words = [sys.executable, str(ROOT / ".ci" / "floors.py"), ",".join(extras)]
    pins = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert pins.returncode == 0, pins.stderr
    found = dict(line.split("==") for line in pins.stdout.splitlines())
    assert {"numpy", "numba", "typer", "pyarrow", "torch", "google-crc32c"} <= set(found)
    assert not any(name.startswith("memento") for name in found)


def test_floors_and_newest_do_without_pytorch():
    """What needs it would bring it, in another version than the tests are for, and CUDA with it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = re.search(r"(?m)^FLOOR_EXTRAS \?= (\S+)$", makefile)[1].split(",")
    optional = settings(ROOT)["project"]["optional-dependencies"]
    wanted = {re.split(r"[>=\[ ]", text)[0] for extra in extras for text in optional[extra]}
    assert "pytest" in wanted
    assert not wanted & {"torch", "torchrl", "tensordict", "lightning", "avalanche-lib"}
