"""How often the release facts are wrong about a (release, flag) or (release, variable) pair.

    python benchmarks/release_sampler.py --cache FOLDER [--pairs 2000] [--seed 1]

FOLDER is the cache of `scripts/refresh_releases.py`. A random pair is drawn from every release and every name that any
release had (and the names that none had); what the data says about it is compared with the release's own unpacked
source, searched as text. The data was made through syntax trees, so the two ways share no code. The last line holds the
figures.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from functools import cache
from pathlib import Path

from vllm_doctor.releases import NEVER_EXISTED, known_versions, release, store

FLAG_FILES = ("engine/arg_utils.py", "entrypoints/cli/serve.py", "scripts.py")
"""Where flags are declared, beside `cli_args.py`, whose folder moved between releases."""


def main() -> None:
    """Draw, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    pairs = drawn(options.pairs, options.seed)
    wrong = [(version, name) for version, name in pairs if knows(version, name) != has(options.cache, version, name)]
    for version, name in wrong:
        print(f"wrong: {version} {name} (data says {knows(version, name)})")
    present = sum(knows(version, name) for version, name in pairs)
    seconds = time.monotonic() - started
    print(
        f"release_sampler: {len(pairs)} pairs, {present} present, {len(pairs) - present} absent, "
        f"{len(wrong)} wrong, seed {options.seed}, {seconds:.1f} s"
    )


def drawn(count: int, seed: int) -> list[tuple[str, str]]:
    """Random pairs of a release and a name, half flags and half variables."""
    source = random.Random(seed)
    flags = [*store.flags(), *(name for name in NEVER_EXISTED if name.startswith("--"))]
    variables = [*store.variables(), *(name for name in NEVER_EXISTED if not name.startswith("--"))]
    names = [source.choice(flags if position % 2 else variables) for position in range(count)]
    return [(source.choice(known_versions()), name) for name in names]


def knows(version: str, name: str) -> bool:
    """What the data says: the release has the flag, or reads the variable."""
    known = release(version)
    return known is not None and name in (known.flags if name.startswith("--") else known.env)


def has(cache_folder: Path, version: str, name: str) -> bool:
    """What the release's source says, by text."""
    package = cache_folder / "sources" / version / "vllm"
    return _has_flag(package, name) if name.startswith("--") else name in _variables(package)


def _has_flag(package: Path, name: str) -> bool:
    if re.search(rf"""[(,]\s*["']{re.escape(name)}["']\s*[,)]""", _declarations(package)):
        return True
    return name[2:].replace("-", "_") in _frontend_fields(package)


@cache
def _declarations(package: Path) -> str:
    """The code of the files that declare flags, from each `add_argument`, with comments taken out."""
    files = [package / name for name in FLAG_FILES] + sorted((package / "entrypoints").glob("**/cli_args.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files if path.exists())
    return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)


@cache
def _frontend_fields(package: Path) -> frozenset[str]:
    """Field names of the classes whose every field is a flag (`FrontendArgs` and its base, from 0.10.0)."""
    names: set[str] = set()
    for path in (package / "entrypoints").glob("**/cli_args.py"):
        text = path.read_text(encoding="utf-8")
        for body in re.findall(r"^class \w*FrontendArgs\w*[(:].*?(?=^(?:def|class|@))", text, re.MULTILINE | re.DOTALL):
            names.update(re.findall(r"^    ([a-z]\w*)\s*:", body, re.MULTILINE))
    return frozenset(names)


@cache
def _variables(package: Path) -> frozenset[str]:
    """Keys of the registry in `envs.py`, and what is asked of the environment anywhere in the package."""
    names: set[str] = set()
    for path in package.rglob("*.py"):
        names.update(re.findall(r"environ[^\"'\n]{0,12}\s*[\"'](VLLM_\w+)[\"']", path.read_text(encoding="utf-8")))
        names.update(re.findall(r"getenv\(\s*[\"'](VLLM_\w+)[\"']", path.read_text(encoding="utf-8")))
    registry = package / "envs.py"
    text = registry.read_text(encoding="utf-8") if registry.exists() else ""
    names.update(re.findall(r"^    [\"'](\w+)[\"']\s*:", text.partition("environment_variables")[2], re.MULTILINE))
    return frozenset(names)


if __name__ == "__main__":
    main()
