"""`vllm-doctor releases`: what is known of the releases of vLLM, and what a launch loses between two."""

from typing import Any

import click

from vllm_doctor import releases
from vllm_doctor.cli.rows import as_json, wrapped
from vllm_doctor.errors import DoctorError
from vllm_doctor.releases import Release
from vllm_doctor.releases.resolver import Target, Verdict, verdicts

FORMATS = ("text", "json")


@click.command("releases", context_settings={"allow_interspersed_args": True})
@click.option("--diff", nargs=2, metavar="OLD NEW", help="What changes between two releases; with LAUNCH, for it.")
@click.option("--driver", metavar="VERSION", help="Which releases run on this NVIDIA driver.")
@click.option("--gpu", multiple=True, metavar="NAME", help="... on this GPU: a name or a compute capability (repeat).")
@click.option("--python-version", metavar="X.Y", help="... on this Python.")
@click.option("--glibc", metavar="X.Y", help="... on this C library.")
@click.option("--machine", default="x86_64", show_default=True, metavar="NAME", help="... on this processor.")
@click.option("--format", "format_name", type=click.Choice(FORMATS), default="text", help="How to report [text].")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[VERSION] [-- LAUNCH...]")
def command(words: tuple[str, ...], diff: tuple[str, str] | None, format_name: str, **given: Any) -> int:
    """What is known of one release, of all of them, or of the way from one to another.

    Without VERSION: every release, with the newest that runs on what --driver, --gpu, --python-version and --glibc
    name. `--diff OLD NEW -- LAUNCH` judges a launch command by both.
    """
    if diff is not None:
        from vllm_doctor.cli import release_diff

        return release_diff.show(_known(diff[0]), _known(diff[1]), words, format_name)
    if len(words) > 1:
        raise DoctorError(f"one release at a time, not {' '.join(words)!r}", "name one, or use --diff OLD NEW")
    if words:
        _show_one(_known(words[0]), format_name)
    else:
        _show_all(_target(given), format_name)
    return 0


def _known(version: str) -> Release:
    found = releases.release(version)
    if found is None:
        newest, date = releases.newest(), releases.data_date()
        raise DoctorError(
            f"vLLM {version} is not in the data", f"it has {releases.known_versions()[0]} to {newest}, as of {date}"
        )
    return found


def _target(given: dict[str, Any]) -> Target:
    return Target(
        driver_version=given["driver"],
        capabilities=tuple(_capability(name) for name in given["gpu"]),
        python_version=given["python_version"],
        libc_version=given["glibc"],
        machine=given["machine"],
    )


def _capability(name: str) -> str:
    from vllm_doctor import hardware

    if name.replace(".", "", 1).isdecimal() and "." in name:
        return name
    from vllm_doctor.memory import boards

    capability = hardware.compute_capability(name) or boards.capability(name)
    if capability is None:
        raise DoctorError(f"no GPU {name!r} in the catalogue", "give its compute capability, such as 8.9")
    return capability


def _show_one(release: Release, format_name: str) -> None:
    if format_name == "json":
        click.echo(as_json(document(release)))
        return
    pins = release.pins
    rows = [
        ("date", release.date),
        ("Python", release.requires_python),
        ("CUDA", f"{release.cuda} (torch), {release.wheel_cuda} (vLLM's wheel)"),
        ("wheels", ", ".join(release.wheel_tags)),
        ("GPUs", ", ".join(release.kernel_architectures)),
        *((name, pins[name]) for name in ("torch", "torchvision", "torchaudio", "transformers") if name in pins),
        ("flags", f"{len(release.flags)} of `vllm serve`"),
        ("variables", f"{len(release.env)}"),
        ("architectures", f"{len(release.architectures)}"),
        ("tool parsers", ", ".join(sorted(release.tool_parsers))),
        ("reasoning parsers", ", ".join(sorted(release.reasoning_parsers))),
        ("quantization", ", ".join(sorted(release.quantization))),
        ("attention", ", ".join(sorted(release.attention_backends))),
        ("KV cache", ", ".join(release.kv_cache_dtypes)),
    ]
    click.echo(f"vLLM {release.version}\n")
    for name, text in rows:
        click.echo(wrapped(name, text or "-"))


def document(release: Release) -> dict[str, Any]:
    """The public JSON of one release (`vllm-doctor/release/1`)."""
    return {
        "schema": "vllm-doctor/release/1",
        "release": release.version,
        "date": release.date,
        "requires_python": release.requires_python,
        "cuda": release.cuda,
        "pins": dict(sorted(release.pins.items())),
        "flags": {
            name: {"choices": list(flag.choices) if flag.choices else None, "default": flag.default}
            for name, flag in sorted(release.flags.items())
        },
        "env": sorted(release.env),
        "architectures": sorted(release.architectures),
        "tool_parsers": sorted(release.tool_parsers),
        "reasoning_parsers": sorted(release.reasoning_parsers),
        "quantization": dict(sorted(release.quantization.items())),
        "attention_backends": sorted(release.attention_backends),
        "wheel_cuda": release.wheel_cuda,
        "wheel_tags": list(release.wheel_tags),
        "kv_cache_dtypes": list(release.kv_cache_dtypes),
    }


def _show_all(target: Target, format_name: str) -> None:
    judged = list(verdicts(target))
    if format_name == "json":
        click.echo(as_json({"schema": "vllm-doctor/releases/1", "releases": [_row(v) for v in judged]}))
        return
    for verdict in judged:
        release = verdict.release
        head = f"{release.version:14} {release.date}  CUDA {release.cuda or '?':5}"
        needs = f"torch {release.pins.get('torch', '?'):9} Python {release.requires_python}"
        click.echo(f"{head} {needs}  {'; '.join(verdict.obstacles)}".rstrip())
    newest = next((v.release.version for v in judged if not v.obstacles), None)
    click.echo("")
    if newest is None:
        click.echo("No release runs there.")
    else:
        click.echo(f"The newest that runs there: {newest}    pip install vllm=={newest}")


def _row(verdict: Verdict) -> dict[str, Any]:
    release = verdict.release
    return {"release": release.version, "date": release.date, "obstacles": list(verdict.obstacles)}
