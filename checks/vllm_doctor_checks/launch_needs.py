"""Checks of what a launch needs besides vLLM: packages for its features, and files that it names."""

import json
from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Host, Launch
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launching import planned_release

# The distribution that a value of a flag imports, and that vLLM does not bring.
# SOURCE: the imports of vllm/model_executor/model_loader/*.py and weight_utils.py, `assert_ray_available` of
# vllm/v1/executor/ray_utils.py, vllm/distributed/kv_transfer/kv_connector/v1/*.py, `SpeculativeConfig` of
# vllm/config/speculative.py, 0.32.0; extras of its metadata.
_BY_VALUE: dict[str, dict[str, str]] = {
    "--load-format": {
        "runai_streamer": "runai-model-streamer",
        "runai_streamer_sharded": "runai-model-streamer",
        "tensorizer": "tensorizer",
        "fastsafetensors": "fastsafetensors",
        "instanttensor": "instanttensor",
    },
    "--distributed-executor-backend": {"ray": "ray"},
    "--data-parallel-backend": {"ray": "ray"},
    "--speculative-config.method": {"suffix": "arctic-inference"},
    "--kv-transfer-config.kv_connector": {"LMCacheConnectorV1": "lmcache", "LMCacheMPConnector": "lmcache"},
}
_ON = frozenset({"1", "true"})


@check("feature-package", causes=("dependency-conflict", "ray-cluster"), needs=("launch", "environment"))
def feature_package(snapshot: Snapshot) -> Iterator[Finding]:
    """The launch asks for a feature whose package is not installed.

    Loaders such as `runai_streamer` and `tensorizer`, Ray, LMCache and ModelScope are packages of their own: vLLM
    imports them only where a flag or a variable asks for them.

    Why: vLLM ends with `No module named ...`, some after the whole configuration is done, or with `Failed to import
    Ray`.
    Fix: install the package, or leave the flag out.
    """
    launch = snapshot.launch
    assert launch is not None
    if launch.docker is not None:
        raise NotApplicable("what the image holds is not known")
    asked = list(_asked(snapshot, launch))
    if not asked:
        raise NotApplicable("the launch asks for no feature with a package of its own")
    environment = known(snapshot.environment)
    for shown, package, edit in asked:
        if environment.distribution(package) is not None:
            continue
        command = ("pip", "install", package)
        yield error(
            "ray-cluster" if package == "ray" else "dependency-conflict",
            f"{shown} needs the package {package}, which is not installed",
            evidence=(shown, f"no {package} among {len(environment.distributions)} distributions"),
            fixes=(
                Fix(title=f"Install {package} in the environment of vLLM", command=command),
                Fix(title="Or do without it", launch=edit, automatic=True),
            ),
        )


def _asked(snapshot: Snapshot, launch: Launch) -> Iterator[tuple[str, str, LaunchEdit]]:
    for flag, packages in _BY_VALUE.items():
        name, _, key = flag.partition(".")
        value = _inside(launch, name, key) if key else launch.value(name)
        if value in packages:
            yield f"{flag} {value}", packages[value], LaunchEdit(unset=(name,))
    if (snapshot.variables.get("VLLM_USE_MODELSCOPE") or "").lower() in _ON:
        yield "VLLM_USE_MODELSCOPE", "modelscope", LaunchEdit(env={"VLLM_USE_MODELSCOPE": None})


def _inside(launch: Launch, flag: str, key: str) -> str | None:
    """One word of a JSON flag, behind a dot or inside of the JSON."""
    if (dotted := launch.value(f"{flag}.{key}")) is not None:
        return dotted
    try:
        document = json.loads((launch.value(flag) or "null")[:100_000])
    except (ValueError, RecursionError):
        return None
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, str) else None


_CERTAIN = {
    "--ssl-keyfile": "bad-flag",
    "--ssl-certfile": "bad-flag",
    "--ssl-ca-certs": "bad-flag",
    "--generation-config": "model-not-found",
    "--hf-config-path": "model-not-found",
    "--speculative-config.model": "model-not-found",
    "VLLM_LOGGING_CONFIG_PATH": "bad-env-var",
    "VLLM_RPC_BASE_PATH": "bad-env-var",
}
# Registers a parser: where the file is not there only a line of the log says so, and the parser's name is unknown.
_PLUGINS = {"--tool-parser-plugin": "--tool-call-parser", "--reasoning-parser-plugin": "--reasoning-parser"}


@check("named-path", causes=("bad-flag", "bad-env-var", "model-not-found"), needs=("launch", "host"))
def named_path(snapshot: Snapshot) -> Iterator[Finding]:
    """A file or folder that a flag or a variable names is not there.

    Keys and certificates, plugins of parsers, a draft model, the configuration of the log.

    Why: vLLM ends with a FileNotFoundError that does not say which file, or takes the path for a repository of the hub.
    Fix: write the path as it is on this machine; relative ones start at the folder where vLLM is started.
    """
    launch, host = snapshot.launch, snapshot.host
    assert isinstance(launch, Launch) and isinstance(host, Host)
    if launch.docker is not None:
        raise NotApplicable("a container has files of its own")
    if not host.complete:
        raise NotKnown("the files of that machine were not looked at")
    for name in host.absent_paths:
        if (cause := _CERTAIN.get(name)) is not None:
            yield _absent(snapshot, name, cause)
        elif name in _PLUGINS:
            yield _plugin(snapshot, launch, name)


def _value(snapshot: Snapshot, name: str) -> str:
    launch = snapshot.launch
    assert launch is not None
    if name.startswith("--"):
        return launch.value(name) or launch.value(name.partition(".")[0]) or ""
    return snapshot.variables.get(name) or ""


def _absent(snapshot: Snapshot, name: str, cause: str) -> Finding:
    value = _value(snapshot, name)
    flag = name if name.startswith("--") else None
    edit = LaunchEdit(unset=(name.partition(".")[0],)) if flag else LaunchEdit(env={name: None})
    title = f"The path that {name} names does not exist"
    fixes = (Fix(title="Write the path as it is on this machine"), Fix(title=f"Or leave {name} out", launch=edit))
    return error(cause, title, evidence=(f"{name} {value}"[:300],), fixes=fixes)


def _plugin(snapshot: Snapshot, launch: Launch, name: str) -> Finding:
    parser = launch.value(_PLUGINS[name])
    release = planned_release(snapshot)
    built_in = release.tool_parsers if name == "--tool-parser-plugin" else release.reasoning_parsers
    report = warning if parser is None or parser in built_in else error
    fix = Fix(title="Write the path of the plugin's file as it is on this machine")
    return report(
        "bad-flag",
        f"The plugin that {name} names does not exist",
        evidence=(f"{name} {launch.value(name)}", f"{_PLUGINS[name]} {parser or 'is not given'}"),
        fixes=(fix,),
    )
