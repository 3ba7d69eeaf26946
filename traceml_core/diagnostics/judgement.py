"""How rules become a diagnosis: run in order, the superseded dropped, first things first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeVar

import msgspec

from traceml_core.diagnostics.model import Issue, SectionName, Severity


class Abstained(msgspec.Struct, frozen=True):
    """A rule could not judge: these signals were not measured. They are named as a person would name them."""

    signals: tuple[str, ...]


class Diagnosis(msgspec.Struct, frozen=True):
    """What a section has to say: `primary`, and every finding, first things first.

    Where no rule found anything, `issues` is empty and `primary` is NORMAL, INCOMPLETE_DATA or NO_DATA.
    """

    primary: Issue
    issues: tuple[Issue, ...] = ()


_Context = TypeVar("_Context", contravariant=True)
_Policy = TypeVar("_Policy", contravariant=True)


class Rule(Protocol[_Context, _Policy]):
    """One kind of issue. The class docstring is its page: what is true, why it matters, what to do."""

    kind: ClassVar[str]
    supersedes: ClassVar[tuple[str, ...]]
    """Kinds that speak of the same seconds or bytes in general terms."""

    def evaluate(self, context: _Context, policy: _Policy) -> Issue | Abstained | None:
        """The finding; null where all is well or the rule does not apply."""
        ...


C = TypeVar("C")
P = TypeVar("P")


def judge(rules: Sequence[Rule[C, P]], context: C, policy: P, *, normal: Issue) -> Diagnosis:
    """Evaluate the rules. `normal` is what the section says when none of them finds anything."""
    found: list[Issue] = []
    missing: dict[str, None] = {}
    hidden: dict[str, int] = {}
    for rule in rules:
        outcome = rule.evaluate(context, policy)
        if isinstance(outcome, Abstained):
            missing.update(dict.fromkeys(outcome.signals))
        elif outcome is not None:
            found.append(outcome)
            for kind in rule.supersedes:
                hidden[kind] = min(hidden.get(kind, _MILDEST + 1), severity_rank(outcome.severity))
    # A specific finding hides the general one for the same seconds or bytes, but never one that is worse.
    kept = [issue for issue in found if severity_rank(issue.severity) < hidden.get(issue.kind, _MILDEST + 1)]
    issues = tuple(sorted(kept, key=weight))
    if issues:
        return Diagnosis(issues[0], issues)
    if missing:
        return Diagnosis(incomplete_data(normal.section, tuple(missing)))
    return Diagnosis(normal)


def weight(issue: Issue) -> tuple[int, float]:
    """What issues are sorted by, smallest first: severity, then impact (null as 0). The sort keeps the rules' order."""
    return severity_rank(issue.severity), -(issue.impact_share or 0.0)


def severity_rank(severity: Severity) -> int:
    """0 for critical, 1 for warning, 2 for info."""
    return _SEVERITIES.index(severity)


def normal_issue(section: SectionName, summary: str, action: str = "Nothing to do.") -> Issue:
    """What a section says when all is well."""
    return Issue(kind="NORMAL", severity="info", section=section, summary=summary, action=action)


def no_data(section: SectionName, summary: str, action: str) -> Diagnosis:
    """What a section says when nothing of it was measured."""
    return Diagnosis(Issue(kind="NO_DATA", severity="info", section=section, summary=summary, action=action))


def incomplete_data(section: SectionName, signals: tuple[str, ...]) -> Issue:
    """What a section says when no rule found anything and some could not judge."""
    named = " and ".join([", ".join(signals[:-1]), signals[-1]] if len(signals) > 1 else signals)
    return Issue(
        kind="INCOMPLETE_DATA",
        severity="info",
        section=section,
        summary=f"Nothing stands out, but {named} {'were' if len(signals) > 1 else 'was'} not measured.",
        action="Read the other numbers; docs/compatibility.md says what this framework and strategy let be measured.",
        evidence={"missing": list(signals)},
    )


_SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
_MILDEST = len(_SEVERITIES) - 1
