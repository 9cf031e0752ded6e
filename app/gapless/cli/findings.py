"""What `gapless check` finds."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str


def ok(subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(subject=subject, verdict=Verdict.OK, text=text)


def warning(subject: str, text: str) -> Finding:
    """It will run; somebody should know."""
    return Finding(subject=subject, verdict=Verdict.WARNING, text=text)


def problem(subject: str, text: str) -> Finding:
    """It will lose events, or not run."""
    return Finding(subject=subject, verdict=Verdict.PROBLEM, text=text)
