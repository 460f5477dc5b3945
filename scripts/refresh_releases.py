"""Regenerates the release facts under `vllm_doctor/releases/data/` from the package index, for all stable releases.

    python scripts/refresh_releases.py --cache ~/.cache/vllm-doctor-releases [--offline] [--jobs 2]

Every download is kept in the cache, so that a run that was stopped goes on where it was and a second run fetches only
what is new; `--offline` uses the cache alone. Nothing that is downloaded is imported or run: source archives come
through pip with an inert build backend in place of their own. Needs pip >= 23.1, uv and rich; 15 minutes and 4 GB for
everything. Run it with the interpreter that has the project installed, `nice -n 15` on a shared machine.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from rich.progress import Progress

from vllm_doctor.releases import kernels, packing, store
from vllm_doctor.releases.extract import extract
from vllm_doctor.releases.facts import TorchRelease

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIRST_VLLM, FIRST_TORCH = Version("0.4.0"), Version("2.1.0")

COMPANIONS = {"torchvision": Version("0.16.0"), "torchaudio": Version("2.1.0"), "xformers": Version("0.0.22.post7")}
"""First releases that go with torch 2.1."""

CUDA_RUNTIMES = ("cuda-toolkit", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu11")

LISTED = ("flash-attn", "flashinfer-python")

PLATFORMS = ("1", "2014", "_2_17", "_2_24", "_2_28", "_2_31", "_2_34", "_2_35")
"""manylinux tags of vLLM, torch and xformers wheels, odd ones included (0.21.0: 2_24); pip must be told each."""

MARKERS = {
    "extra": "",
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}
"""Where pins must hold: x86_64 Linux, as vLLM's images are."""

KEPT = re.compile(r"^(vllm/.*\.py|setup\.py|PKG-INFO|(docker/)?Dockerfile)$")

INERT_BACKEND = """
import pathlib

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    lines = pathlib.Path("PKG-INFO").read_text(encoding="utf-8", errors="replace").splitlines()[:40]
    head = dict(line.split(": ", 1) for line in lines if line.startswith(("Name: ", "Version: ")))
    folder = pathlib.Path(metadata_directory, "{Name}-{Version}.dist-info".format(**head))
    folder.mkdir()
    text = "Metadata-Version: 2.1\\nName: {Name}\\nVersion: {Version}\\n".format(**head)
    (folder / "METADATA").write_text(text, encoding="utf-8")
    return folder.name
"""
"""Stands in for setuptools.build_meta, so that `pip download` of a source archive does not run its setup.py."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Index:
    """The package index as seen through pip and uv, every answer kept in the cache."""

    cache: Path
    offline: bool

    def versions(self, name: str) -> list[Version]:
        """Stable releases, oldest first; asked anew on every run that may, and taken from the cache offline."""
        kept = self.cache / "versions" / f"{name}.json"
        if not self.offline:
            output = run([sys.executable, "-m", "pip", "index", "versions", name])
            listed = re.search(r"Available versions: (.*)", output)
            write(kept, json.dumps(listed.group(1).split(", ") if listed else []))
        found = (Version(text) for text in json.loads(kept.read_text()))
        return sorted(version for version in found if not version.is_prerelease and version.local is None)

    def metadata(self, name: str, version: Version) -> dict[str, Any]:
        """Core metadata of the x86_64 Linux wheel, read by range requests where the index allows them."""
        kept = self.cache / "metadata" / name / f"{version}.json"
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                report = Path(folder, "report.json")
                platforms = [f"--platform=manylinux{tag}_x86_64" for tag in PLATFORMS]
                options = [
                    "--dry-run",
                    "--no-deps",
                    "--ignore-installed",
                    "--only-binary=:all:",
                    "--python-version=3.11",
                ]
                self.pip(
                    "install",
                    *options,
                    *platforms,
                    "--use-feature=fast-deps",
                    f"--target={folder}/none",
                    f"--report={report}",
                    f"{name}==={version}",
                )
                found = json.loads(report.read_text())["install"][0]["metadata"]
            write(kept, json.dumps({key: found.get(key) for key in ("requires_python", "requires_dist")}))
        loaded: dict[str, Any] = json.loads(kept.read_text())
        return loaded

    def pins(self, name: str, version: Version) -> dict[str, str]:
        """Requirement specifiers of a release, by package."""
        return pins_of(self.metadata(name, version))

    def files(self, name: str, version: Version) -> list[dict[str, Any]]:
        """Every file of a release: name, upload time."""
        kept = self.cache / "files" / name / f"{version}.json"
        if not kept.exists():
            self.refuse_offline(kept)
            text = run(
                ["uv", "pip", "compile", "--quiet", "--no-deps", "--universal", "--format=pylock.toml", "-"],
                f"{name}==={version}\n",
            )
            package = tomllib.loads(text)["packages"][0]
            files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
            rows = [
                {"name": PurePosixPath(file["url"]).name, "time": file["upload-time"].isoformat()} for file in files
            ]
            write(kept, json.dumps(rows))
        loaded: list[dict[str, Any]] = json.loads(kept.read_text())
        return loaded

    def source(self, version: Version) -> Path:
        """The unpacked source of a vLLM release: its source archive, or its wheel where there is none."""
        folder = self.cache / "sources" / str(version)
        if not folder.exists():
            archive = self._downloaded(version)
            staged = folder.with_name(f"{version}.part")
            shutil.rmtree(staged, ignore_errors=True)
            unpack(archive, staged)
            staged.rename(folder)
            archive.unlink()
        return folder

    def _downloaded(self, version: Version) -> Path:
        downloads = self.cache / "downloads"
        kept = [*downloads.glob(f"vllm-{version}.tar.gz"), *downloads.glob(f"vllm-{version}-*.whl")]
        if kept:
            return kept[0]
        has_archive = any(file["name"].endswith(".tar.gz") for file in self.files("vllm", version))
        wheel = [
            "--only-binary=:all:",
            "--python-version=3.11",
            *(f"--platform=manylinux{tag}_x86_64" for tag in PLATFORMS),
        ]
        archive = ["--no-binary=:all:", "--no-build-isolation", "--ignore-requires-python"]
        self.pip(
            "download", "--no-deps", f"--dest={downloads}", *(archive if has_archive else wheel), f"vllm==={version}"
        )
        return self._downloaded(version)

    def pip(self, *arguments: str) -> None:
        """Run pip with the inert build backend ahead of the real one."""
        self.refuse_offline(Path(arguments[-1]))
        backend = self.cache / "inert" / "setuptools"
        write(backend / "build_meta.py", INERT_BACKEND)
        write(backend / "__init__.py", "")
        command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-cache-dir"]
        run(command, environment={"PYTHONPATH": str(backend.parent)} if arguments[0] == "download" else {})

    def refuse_offline(self, wanted: Path) -> None:
        """Stop when the cache lacks something and the network may not be asked."""
        if self.offline:
            raise SystemExit(f"not in the cache, and --offline was given: {wanted.name}")


def run(command: Sequence[str], text: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Run a command and give its output; its own words end this script when it fails."""
    settings = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(environment or {})}
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, and only when it changes."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{path.name}.{os.getpid()}.part")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)


def unpack(archive: Path, into: Path) -> None:
    """Unpack the Python sources and build files of an archive; names that lead outside are not in the kept set."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in filter(is_kept, wheel.namelist()):
                write(into / name, wheel.read(name).decode("utf-8", "replace"))
        return
    with tarfile.open(archive) as source:
        for member in source:
            name = member.name.partition("/")[2]
            content = source.extractfile(member) if member.isfile() and is_kept(name) else None
            if content is not None:
                write(into / name, content.read().decode("utf-8", "replace"))


def is_kept(name: str) -> bool:
    """Whether an archive's member is of use, and harmless as a path."""
    return bool(KEPT.match(name)) and ".." not in PurePosixPath(name).parts


def pins_of(metadata: Mapping[str, Any], python: str = "3.12") -> dict[str, str]:
    """Requirement specifiers by package, those that hold where vLLM runs on CUDA; "" where any version will do."""
    markers = {**MARKERS, "python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    for text in metadata["requires_dist"] or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(markers):
            found[canonicalize_name(requirement.name)] = str(requirement.specifier)
    return dict(sorted(found.items()))


def release_row(index: Index, version: Version) -> store.ReleaseRow:
    """What is kept per release."""
    files = index.files("vllm", version)
    wheels = [file["name"] for file in files if file["name"].endswith(".whl")]
    platforms = {tag for name in wheels for tag in name.removesuffix(".whl").split("-")[-1].split(".")}
    requires_python = index.metadata("vllm", version)["requires_python"] or ""
    return store.ReleaseRow(
        first_upload(files), requires_python, wheel_cuda(index.source(version)), tuple(sorted(platforms))
    )


def first_upload(files: Iterable[Mapping[str, str]]) -> str:
    """The ISO date on which a release's first file came to the index."""
    return min(file["time"] for file in files)[:10]


def wheel_cuda(source: Path) -> str | None:
    """The CUDA version that a release's default wheel is built for, as its setup.py or envs.py states it."""
    for name, pattern in (
        ("vllm/envs.py", r"VLLM_MAIN_CUDA_VERSION\",\s*\"\"\)\.lower\(\)\s*or\s*\"([\d.]+)\""),
        ("vllm/envs.py", r"VLLM_MAIN_CUDA_VERSION\",\s*\"([\d.]+)\""),
        ("setup.py", r"MAIN_CUDA_VERSION = \"([\d.]+)\""),
    ):
        path = source / name
        found = re.search(pattern, path.read_text(encoding="utf-8")) if path.exists() else None
        if found:
            return found.group(1)
    return None


def torch_rows(
    index: Index, fetch: Callable[[str, Callable[[Any], Any], Sequence[Any]], list[Any]]
) -> dict[str, TorchRelease]:
    """torch releases with what fits them."""
    companions = {}
    for name, first in COMPANIONS.items():
        known = [version for version in index.versions(name) if version >= first]
        pins = fetch(name, functools.partial(index.pins, name), known)
        companions[name] = list(zip(known, pins, strict=True))
    versions = [version for version in index.versions("torch") if version >= FIRST_TORCH]
    rows = fetch("torch", lambda version: torch_row(index, version), versions)
    return {
        str(version): msgspec.structs.replace(row, companions=fitting(companions, version))
        for version, row in zip(versions, rows, strict=True)
    }


def torch_row(index: Index, version: Version) -> TorchRelease:
    """One torch release; its CUDA is that of the runtime (to 2.10) or toolkit (from 2.11) package that it pins."""
    metadata = index.metadata("torch", version)
    pins = pins_of(metadata, python="3.11")  # torch 2.2.1 - 2.3.1 ask for triton only below Python 3.12
    runtime = next((pins[name] for name in CUDA_RUNTIMES if name in pins), "")
    cuda = ".".join(runtime.removeprefix("==").split(".")[:2]) or None
    return TorchRelease(
        date=first_upload(index.files("torch", version)),
        requires_python=metadata["requires_python"] or "",
        cuda=cuda,
        architectures=kernels.torch_architectures(cuda),
        architectures_read=str(version) in kernels.TORCH_WHEELS_READ,
        triton=pins.get("triton"),
    )


def fitting(
    companions: Mapping[str, Sequence[tuple[Version, Mapping[str, str]]]], torch: Version
) -> dict[str, tuple[str, ...]]:
    """Companions whose requirement admits a torch release; one without a requirement fits its own number and later."""
    found: dict[str, tuple[str, ...]] = {}
    for name, releases in companions.items():
        admitted = [str(version) for version, pins in releases if admits(pins.get("torch", f">={version}"), torch)]
        if admitted:
            found[name] = tuple(admitted)
    return found


def admits(specifier: str, torch: Version) -> bool:
    """Whether a requirement on torch is met."""
    return Requirement(f"torch{specifier}").specifier.contains(torch, prereleases=True)


def publish(files: Mapping[str, str], rows: Mapping[str, store.ReleaseRow]) -> bool:
    """Write the data; the date of generation moves only when anything else does. True when something changed."""
    kept = store.DATA / "releases.json"
    dated = json.loads(kept.read_text())["generated"] if kept.exists() else ""
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    texts = {**files, "releases.json": packing.index_text(dated, rows)}
    changed = any(
        not (store.DATA / name).exists() or (store.DATA / name).read_text() != text for name, text in texts.items()
    )
    for name, text in {**texts, "releases.json": packing.index_text(today if changed else dated, rows)}.items():
        write(store.DATA / name, text)
    return changed


def refresh(index: Index, jobs: int, progress: Progress) -> str:
    """Fetch what is missing, extract, fold, publish; one line that says what came of it."""

    def fetch(title: str, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        with ThreadPoolExecutor(jobs) as pool:
            return tracked(progress, pool, title, work, items)

    versions = [version for version in index.versions("vllm") if version >= FIRST_VLLM]
    rows = fetch("vllm: files, metadata, sources", lambda version: release_row(index, version), versions)
    pins = [index.pins("vllm", version) for version in versions]
    with ProcessPoolExecutor(jobs) as pool:
        packages = [index.source(version) / "vllm" for version in versions]
        found = tracked(progress, pool, "vllm: extraction", extract, packages)
    names = [str(version) for version in versions]
    files = packing.data_files(names, found, pins)
    listed = {name: [str(version) for version in index.versions(name)] for name in LISTED}
    files["packages.json"] = packing.tables_text({"torch": torch_rows(index, fetch), "versions": listed})
    changed = publish(files, dict(zip(names, rows, strict=True)))
    size = sum(path.stat().st_size for path in store.DATA.glob("*.json"))
    return f"{len(names)} releases, {names[0]} - {names[-1]}, {size} bytes, {'changed' if changed else 'unchanged'}"


def tracked(
    progress: Progress, pool: Executor, title: str, work: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """Do one piece of work per item in a pool, with a bar."""
    task = progress.add_task(title, total=len(items))
    results = []
    for result in pool.map(work, items):
        results.append(result)
        progress.advance(task)
    return results


def main() -> None:
    """Translate the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for downloads; kept between runs")
    parser.add_argument("--offline", action="store_true", help="use the cache alone")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="workers (default 2)")
    options = parser.parse_args()
    with Progress() as progress:
        line = refresh(Index(options.cache.expanduser().resolve(), options.offline), options.jobs, progress)
    print(line)


if __name__ == "__main__":
    main()
