"""The check on urllib3, requests and the AWS clients: which pairs really break, and which are only declared illegal."""

import re
from collections.abc import Iterator

from vllm_doctor.check import check, known
from vllm_doctor.facts import Distribution, Environment
from vllm_doctor.finding import Finding, Fix, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import installers, requirements
from vllm_doctor_checks.breakages import CLOUD

CAUSE = "dependency-conflict"


@check("cloud-libraries", causes=("dependency-conflict",), needs=("environment",))
def cloud_libraries(snapshot: Snapshot) -> Iterator[Finding]:
    """urllib3, requests, botocore, boto3 or their relatives are of versions that do not go together.

    Why: no vLLM requires boto3, botocore or urllib3 itself; they come through requests, S3 loaders and cloud images,
    and an image often mixes an old botocore with a new urllib3. Few pairs really fail, and those are errors: `cannot
    import name 'DEFAULT_CIPHERS'`, `No module named 'urllib3.packages.six.moves'`, `cannot import name 'appengine'`. A
    declared range that is merely violated mostly works and is a warning.
    Fix: upgrade the older half. Upper bounds such as `urllib3<2` cure nothing that an upgrade does not.
    """
    environment, _ = requirements.vllm_of(snapshot)
    spoken_of: set[tuple[str, str]] = set()
    for pair, finding in _broken_pairs(environment):
        spoken_of.add(pair)
        yield finding
    yield from _declared_ranges(environment, spoken_of)
    yield from _old_openssl(environment)
    requirements.refuse_incomplete(environment)


def _broken_pairs(environment: Environment) -> Iterator[tuple[tuple[str, str], Finding]]:
    urllib3 = environment.distribution("urllib3")
    if urllib3 is not None and urllib3.version is not None:
        if finding := _urllib3_on_new_python(environment, urllib3):
            yield ("python", "urllib3"), finding
        if _version(urllib3) >= (2, 0, 0):
            yield from _under_urllib3_2(environment, urllib3)
    yield from _aws_halves(environment)


def _urllib3_on_new_python(environment: Environment, urllib3: Distribution) -> Finding | None:
    """Reproduced: urllib3 1.25.11, 1.26.0 and 1.26.4 on Python 3.12; 1.26.5 and 1.26.18 import, 1.26.4 on 3.11 too."""
    if requirements.release(environment.python_version)[:2] < (3, 12) or _version(urllib3) >= (1, 26, 5):
        return None
    return error(
        CAUSE,
        f"urllib3 {urllib3.version} cannot be imported by Python {environment.python_version}",
        evidence=(
            f"installed: urllib3 {urllib3.version}; from Python 3.12 on 1.26.5 or newer is needed",
            "the copy of six in it fails: No module named 'urllib3.packages.six.moves'",
        ),
        fixes=(installers.repair(environment, "Upgrade urllib3", "urllib3>=1.26.20"),),
    )


def _under_urllib3_2(environment: Environment, urllib3: Distribution) -> Iterator[tuple[tuple[str, str], Finding]]:
    botocore, toolbelt = environment.distribution("botocore"), environment.distribution("requests-toolbelt")
    if _older(botocore, (1, 29, 125)) and botocore is not None:
        yield ("botocore", "urllib3"), _botocore_finding(environment, urllib3, botocore)
    if _older(toolbelt, (1, 0, 0)) and toolbelt is not None:
        yield ("requests-toolbelt", "urllib3"), _toolbelt_finding(environment, urllib3, toolbelt)


def _botocore_finding(environment: Environment, urllib3: Distribution, botocore: Distribution) -> Finding:
    """Reproduced: botocore 1.27.59, 1.29.76, .85, .100 and .115 with urllib3 2.0.7; 1.29.125 imports."""
    together = [n for n in ("boto3", "botocore", "s3transfer") if n == "botocore" or environment.distribution(n)]
    return error(
        CAUSE,
        f"botocore {botocore.version} cannot be imported with urllib3 {urllib3.version}",
        evidence=(
            f"installed: botocore {botocore.version}, urllib3 {urllib3.version}",
            "botocore before 1.29.125 imports DEFAULT_CIPHERS from urllib3.util.ssl_, which urllib3 2 has not",
        ),
        fixes=(
            Fix(
                title="Upgrade the AWS clients together",
                command=installers.install(environment, *together, options=("-U",)),
            ),
            installers.repair(environment, "Or, where they cannot move, take urllib3 back", "urllib3<2"),
        ),
    )


def _toolbelt_finding(environment: Environment, urllib3: Distribution, toolbelt: Distribution) -> Finding:
    """Reproduced: requests-toolbelt 0.9.1 and 0.10.1 with urllib3 2.x; 1.0.0 imports."""
    asking = [d.name for d in environment.distributions if _requires(d, "requests-toolbelt")]
    evidence = (
        f"installed: requests-toolbelt {toolbelt.version}, urllib3 {urllib3.version}",
        "requests-toolbelt before 1.0.0 imports appengine from urllib3.contrib, which urllib3 2 has not",
        f"required by: {', '.join(asking[:3])}" if asking else "no installed distribution requires it",
    )
    make = error if asking else warning
    title = f"requests-toolbelt {toolbelt.version} cannot be imported with urllib3 {urllib3.version}"
    fix = Fix(
        title="Upgrade requests-toolbelt",
        command=installers.install(environment, "requests", "requests-toolbelt", options=("-U",)),
    )
    return make(CAUSE, title, evidence=evidence, fixes=(fix,))


def _requires(distribution: Distribution, name: str) -> bool:
    return any(requirements.requirement_name(line) == name for line in distribution.requires)


def _aws_halves(environment: Environment) -> Iterator[tuple[tuple[str, str], Finding]]:
    botocore = environment.distribution("botocore")
    boto3, aiobotocore = environment.distribution("boto3"), environment.distribution("aiobotocore")
    if botocore is None and environment.complete:
        yield from (
            (("boto3", "botocore"), _half_removed(environment, d)) for d in (boto3, aiobotocore) if d is not None
        )
    if botocore is None or botocore.version is None:
        return
    if boto3 is not None and (finding := _boto3_finding(environment, boto3, botocore)):
        yield ("boto3", "botocore"), finding
    if aiobotocore is not None and (finding := _aiobotocore_finding(environment, aiobotocore, botocore)):
        yield ("aiobotocore", "botocore"), finding


def _half_removed(environment: Environment, left: Distribution) -> Finding:
    """Reproduced: an environment from which one half was removed, `No module named 'botocore'`."""
    return warning(
        CAUSE,
        f"{left.name} {left.version} is there, and botocore, without which it cannot be imported, is not",
        evidence=(f"installed: {left.name} {left.version}", "botocore is not installed: ModuleNotFoundError"),
        fixes=(installers.repair(environment, f"Install what {left.name} requires", f"{left.name}=={left.version}"),),
    )


def _boto3_finding(environment: Environment, boto3: Distribution, botocore: Distribution) -> Finding | None:
    """Reproduced: boto3 1.38.0 with botocore 1.29.165 fails; boto3 1.26.165 with botocore 1.40 works.

    From 1.34 on both carry the same minor number (their metadata); before, boto3 1.A goes with botocore 1.(A+3).
    """
    new, old = _version(boto3)[:2], _version(botocore)[:2]
    if new < (1, 34) or new == old:
        return None
    evidence = (f"installed: boto3 {boto3.version}, botocore {botocore.version}; their minor numbers must be the same",)
    fix = Fix(
        title="Upgrade both together",
        command=installers.install(environment, "boto3", "botocore", "s3transfer", options=("-U",)),
    )
    if new > old:
        how = "Session.create_client() got an unexpected keyword argument: no client can be made"
        title = f"boto3 {boto3.version} does not work with the older botocore {botocore.version}"
        return error(CAUSE, title, evidence=(*evidence, how), fixes=(fix,))
    title = f"boto3 {boto3.version} is older than botocore {botocore.version}"
    return warning(CAUSE, title, evidence=evidence, fixes=(fix,))


def _aiobotocore_finding(environment: Environment, aiobotocore: Distribution, botocore: Distribution) -> Finding | None:
    """Reproduced: aiobotocore 2.5.4 with botocore 1.40: it imports, and no client can be made."""
    edge = requirements.declared(aiobotocore, environment, "botocore")
    if edge is None or not edge.violated:
        return None
    upgraded = [n for n in ("aiobotocore", "s3fs") if n == "aiobotocore" or environment.distribution(n)]
    return error(
        CAUSE,
        f"aiobotocore {aiobotocore.version} does not work with botocore {botocore.version}",
        evidence=(
            f"aiobotocore {aiobotocore.version} requires {edge.text}, installed: {botocore.version}",
            "it overrides botocore's internals, so that its narrow range is meant: no client can be made",
        ),
        fixes=(
            Fix(
                title="Upgrade it: it brings the botocore that it needs",
                command=installers.install(environment, *upgraded, options=("-U",)),
            ),
        ),
    )


def _declared_ranges(environment: Environment, spoken_of: set[tuple[str, str]]) -> Iterator[Finding]:
    """Ranges that are violated and known to work: botocore 1.31 to 1.34 with urllib3 2.x, 1.40 with 1.26 and 2.8.

    Not those of a distribution that a broken pair has named: it is to be upgraded anyway.
    """
    to_be_moved = {name for pair in spoken_of for name in pair}
    for name in sorted(CLOUD):
        there = environment.distribution(name)
        if there is None:
            continue
        for edge in requirements.edges_of(there, environment, CLOUD):
            if edge.violated and edge.installed is not None and edge.by.name not in to_be_moved:
                yield _range_finding(environment, edge)
    yield from _chardet(environment)


def _range_finding(environment: Environment, edge: requirements.Edge) -> Finding:
    installed = edge.installed.version if edge.installed is not None else None
    by = f"{edge.by.name} {edge.by.version}"
    return warning(
        CAUSE,
        f"{by} does not list {edge.target} {installed} among those it was tried with",
        evidence=(
            f"{by} requires {edge.text}, installed: {installed}",
            "it imports; no failure of this pair is known",
        ),
        fixes=(
            Fix(
                title=f"Upgrade {edge.by.name}", command=installers.install(environment, edge.by.name, options=("-U",))
            ),
        ),
    )


def _chardet(environment: Environment) -> Iterator[Finding]:
    """requests/__init__.py, check_compatibility: RequestsDependencyWarning and nothing else (requests 2.32.3)."""
    requests, chardet = environment.distribution("requests"), environment.distribution("chardet")
    if requests is None or chardet is None or chardet.version is None:
        return
    for edge in requirements.declared_by_any_extra(requests, environment, "chardet"):
        if edge.violated:
            yield warning(
                CAUSE,
                f"requests {requests.version} warns of chardet {chardet.version} at every start",
                evidence=(
                    f"requests {requests.version} takes {edge.text}, installed: {chardet.version}",
                    "RequestsDependencyWarning: a warning only, everything imports",
                ),
                fixes=(installers.repair(environment, "Install a chardet that it knows", edge.text),),
            )


def _old_openssl(environment: Environment) -> Iterator[Finding]:
    """urllib3/__init__.py from 2.0: refuses an ssl module compiled with OpenSSL before 1.1.1."""
    urllib3 = environment.distribution("urllib3")
    if urllib3 is None or _version(urllib3) < (2, 0, 0):
        return
    text = known(environment.openssl_version)
    found = _OPENSSL.search(text)
    if found is None or "libre" in text.lower() or tuple(map(int, found.groups())) >= (1, 1, 1):
        return
    yield error(
        CAUSE,
        f"urllib3 {urllib3.version} refuses this Python's OpenSSL {found[0]}",
        evidence=(
            f"the ssl module of {environment.python} is compiled with {text}",
            "ImportError: urllib3 v2 only supports OpenSSL 1.1.1+",
        ),
        fixes=(
            Fix(title="Use a Python with a newer OpenSSL", command=("uv", "venv", "--python", "3.12")),
            installers.repair(environment, "Or, as a stopgap, take urllib3 back", "urllib3<2"),
        ),
    )


_OPENSSL = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")


def _older(distribution: Distribution | None, than: tuple[int, int, int]) -> bool:
    return distribution is not None and distribution.version is not None and _version(distribution) < than


def _version(distribution: Distribution) -> tuple[int, int, int]:
    return requirements.release(distribution.version)
