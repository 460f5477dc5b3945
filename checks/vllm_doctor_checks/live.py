"""Checks of servers that answer: what the figures of their /metrics mean."""

from collections.abc import Iterator

from msgspec import structs

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import ServerAnswer, Servers, Unknown
from vllm_doctor.finding import Finding, Fix
from vllm_doctor.snapshot import Snapshot


@check("server-health", causes=("oom-kv", "connection-timeout", "engine-dead"), needs=("servers",))
def server_health(snapshot: Snapshot) -> Iterator[Finding]:
    """A running server's own figures show that it is overloaded, too small, or that its requests fail.

    Why: /metrics tells how full the KV cache is, how many requests wait, were preempted, aborted or ended in an error,
    and how long the first token takes: the rules of `vllm-doctor connect`, on one look. Rates and stalls need two
    samples: `vllm-doctor connect URL --watch SECONDS`.
    Fix: the knob that the finding names: more KV cache, fewer or more sequences at once, a smaller context, replicas.
    """
    servers = snapshot.servers
    assert isinstance(servers, Servers)
    answering = [answer for answer in servers.answers if answer.failure is None and not answer.other_server]
    if not answering:
        raise NotApplicable("no server was asked, or none answers")
    reasons = []
    for answer in answering:
        if isinstance(answer.metrics, Unknown):
            reasons.append(answer.metrics.reason)
        else:
            yield from _judged(answer)
    if reasons:
        raise NotKnown(reasons[0])


def _judged(answer: ServerAnswer) -> Iterator[Finding]:
    from vllm_doctor.client.health_rules import Window, judge
    from vllm_doctor.client.metrics import from_facts

    assert not isinstance(answer.metrics, Unknown)
    found, absent = judge(Window(from_facts(answer.metrics)))
    for finding in found:
        fixes = tuple(_as_words(fix) for fix in finding.fixes)
        yield structs.replace(
            finding, title=f"{finding.title[:1].upper()}{finding.title[1:]} ({answer.url})", fixes=fixes
        )
    absent.pop("engine-stalled", None)
    if absent:
        raise NotKnown(f"{answer.url}/metrics lacks {', '.join(sorted(set(absent.values())))}")


def _as_words(fix: Fix) -> Fix:
    """The fix with its flags in its title: it is for the running server's command, not for the launch examined here."""
    if fix.launch is None:
        return fix
    flags = [name if value is None else f"{name} {value}" for name, value in fix.launch.set.items()]
    return structs.replace(fix, title=f"{fix.title}: start it again with {' '.join(flags)}", launch=None)
