"""
What to say of a run of datagrams: score → **lines**.

Asked by `twsock.cli.datagram_echo` at the end.
"""

from __future__ import annotations

from twsock.cli.datagram_score import DatagramScore, ResponderScore

__all__ = ["describe_loss", "describe_run"]


def describe_run(score: DatagramScore, *, is_group: bool = False) -> list[str]:
    """
    Say how many were sent, answered and lost, and how long it took.

    :returns: one line; of a group, one more for each responder.
    """
    heard = {name: one for name, one in score.responders.items() if one.answered or one.late}
    counts = {
        "late": score.late,
        "awaited": score.unanswered,
    }
    line = f"{score.sent} sent, {score.answered} answered"
    if is_group:
        counts["not sent by us"] = score.foreign
        line += f" by {len(heard)}" if score.answered else ""
        line += _count(counts) + f", {_share(score.lost, score.sent)}"
        return [line, *(f"{name}: {_describe(one, score)}" for name, one in heard.items())]
    line += _count(counts) + f", {_share(score.lost, score.sent)}"
    return [line + "".join(_describe_order(one) for one in heard.values())]


def describe_loss(score: DatagramScore) -> str | None:
    """Say in one line what was lost or came back changed; None when all is well."""
    if score.foreign == 1:
        return "1 datagram came back that was not sent"
    if score.foreign:
        return f"{score.foreign} datagrams came back that were not sent"
    if score.lost:
        return f"of {score.sent} datagrams, {_share(score.lost, score.sent)}"
    for name, one in score.responders.items():
        missing = score.sent - one.answered - one.late
        if missing and missing == score.missing:
            return f"{name} did not answer {missing} of {score.sent} datagrams"
    return None


def _describe(one: ResponderScore, score: DatagramScore) -> str:
    missing = max(0, score.sent - score.unanswered - one.answered - one.late)
    late = _count({"late": one.late})
    return f"{one.answered} answered{late}, {_share(missing, score.sent)}{_describe_order(one)}"


def _describe_order(one: ResponderScore) -> str:
    counts = {
        "duplicate" if one.duplicates == 1 else "duplicates": one.duplicates,
        "out of order": one.reordered,
    }
    figures = one.round_trips.figures
    return _count(counts) + (f"; {figures}" if figures else "")


def _count(counts: dict[str, int]) -> str:
    """Name what there is any of."""
    return "".join(f", {count} {name}" for name, count in counts.items() if count)


def _share(lost: int, sent: int) -> str:
    # Three digits, so that one in a million is not rounded to none.
    return f"{lost} lost ({100 * lost / sent:.3g} %)" if lost else "0 lost"
