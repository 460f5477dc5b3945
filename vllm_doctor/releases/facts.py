"""The types in which a release's facts are handed out, and in which they lie in the data files."""

from __future__ import annotations

import msgspec


class Flag(msgspec.Struct, frozen=True, omit_defaults=True):
    """One command line flag of `vllm serve`.

    kind: "str", "int", "float", "bool", "json", "json-or-str", "key-value", "human-int" (4k = 4000, 4K = 4096) or
    "human-int-or-auto". choices: what is accepted, `open_choices` says that other values are accepted as well.
    default: as text, JSON for lists and dicts, a class name for a config object, `<source>` for what is computed at run
    time. nargs: argparse's ("0" takes no value, "1", "?", "+", "*"). negatable: `--no-X` exists. folded: the value is
    lower-cased and `-` becomes `_` before it is compared. alias_of: the flag of which this is another name.
    """

    name: str = ""
    kind: str = "str"
    choices: tuple[str, ...] | None = None
    open_choices: bool = False
    default: str | None = None
    repeated: bool = False
    short: tuple[str, ...] = ()
    deprecated: str | None = None
    nargs: str = "1"
    negatable: bool = False
    folded: bool = False
    alias_of: str | None = None


class EnvVar(msgspec.Struct, frozen=True, omit_defaults=True):
    """One environment variable.

    kind: "str", "int", "float" or "bool". converter: "int" or "float" when any other text ends the start with a
    ValueError (so `VLLM_X=true` does, where the source says `bool(int(...))`). registered: stands in `vllm/envs.py`;
    others are read elsewhere in the source, and vLLM's own check for unknown variables (from 0.17.0) warns about them.
    """

    name: str = ""
    kind: str = "str"
    choices: tuple[str, ...] | None = None
    default: str | None = None
    converter: str | None = None
    registered: bool = True


class Span(msgspec.Struct, frozen=True):
    """The first and the last release that had something; `last` is None while the newest release still has it."""

    first: str
    last: str | None


class Release(msgspec.Struct, frozen=True):
    """What one vLLM release knows and needs.

    date: ISO, first upload. cuda: of the default torch wheel; wheel_cuda: of the vLLM wheel itself. wheel_tags: the
    platform tags. kernel_architectures: compute capabilities ("8.0") with machine code in the vLLM wheel. pins: the
    requirement specifiers that hold on Linux x86_64 with CUDA and Python 3.12. quantization: method to least compute
    capability (89 = 8.9), None where the release does not say.
    An empty text, None or an empty container means: not known (an installed source tree says nothing about wheels).
    """

    version: str
    date: str = ""
    requires_python: str = ""
    cuda: str | None = None
    wheel_cuda: str | None = None
    wheel_tags: tuple[str, ...] = ()
    kernel_architectures: tuple[str, ...] = ()
    pins: dict[str, str] = {}
    flags: dict[str, Flag] = {}
    env: dict[str, EnvVar] = {}
    architectures: frozenset[str] = frozenset()
    removed_architectures: dict[str, str] = {}
    tool_parsers: tuple[str, ...] = ()
    reasoning_parsers: tuple[str, ...] = ()
    quantization: dict[str, int | None] = {}
    attention_backends: tuple[str, ...] = ()
    kv_cache_dtypes: tuple[str, ...] = ()


class TorchRelease(msgspec.Struct, frozen=True, omit_defaults=True):
    """One torch release: its default Linux x86_64 wheel and what fits it.

    cuda: "12.8". architectures: compute capabilities ("8.0") with kernels in the wheel; architectures_read: this very
    wheel was read, not a neighbour of the same CUDA version. triton: specifier. companions: by package name, the
    versions whose requirement admits this torch.
    """

    version: str = ""
    date: str = ""
    requires_python: str = ""
    cuda: str | None = None
    architectures: tuple[str, ...] = ()
    architectures_read: bool = False
    triton: str | None = None
    companions: dict[str, tuple[str, ...]] = {}
