"""AttributeResult of attributes as lines for people."""

from __future__ import annotations

from lookalike.deploy.evaluation.attributes import (
    AttributeReport,
    AttributeResult,
    AttributeSearchResult,
    EditResult,
)

__all__ = ["attribute_lines"]


def attribute_lines(found: AttributeReport) -> str:
    """Return lines for people, a block for each attribute."""
    blocks = [_block(one, found.pictures) for one in found.each]
    blocks.append([f"an edit and its opposite give back the latent within {found.undone:.1e}"])
    return "\n\n".join("\n".join(block) for block in blocks)


def _block(one: AttributeResult, pictures: int) -> list[str]:
    lines = [
        f"{one.name}: read with AUC {one.auc:.3f} on {one.tested:,} held-out pictures; the judge has AUC "
        f"{one.judge_auc:.3f} and is right on {one.judge_accuracy:.1%}",
        f"{'edit':>6} {'faces':>6} {'seen by judge':>14} {'finds its original':>19}  others move at most "
        "(judged; read)",
    ]
    lines += map(_edit, one.edits)
    head = f"{'search':>6} {'queries':>7} {'hits with it':>13} {'of labelled hits':>17} {'likeness':>9}"
    lines += [f"{head} {'same person':>12}", *map(_search, one.searches)]
    return [*lines, f"hits are the ten likest of {pictures:,}, the query left out; likeness: to it unedited"]


def _edit(edit: EditResult) -> str:
    moved = "-"
    if edit.others:
        judged, by = max(((shift.judged, name) for name, shift in edit.others.items()), key=_size)
        read, of = max(((shift.read, name) for name, shift in edit.others.items()), key=_size)
        moved = f"{by} {judged:+.2f} sd; {of} {read:+.2f} sd"
    return f"{edit.strength:>+6g} {edit.faces:>6,} {edit.success:>14.1%} {edit.kept:>19.1%}  {moved}"


def _search(row: AttributeSearchResult) -> str:
    labelled = "-" if row.labelled is None else f"{row.labelled:.1%}"
    strength = f"{row.strength:+g}" if row.strength else "plain"
    return (
        f"{strength:>6} {row.queries:>7,} {row.share:>13.1%} {labelled:>17} {row.likeness:>9.3f} "
        f"{row.same_person:>12.1%}"
    )


def _size(shift: tuple[float, str]) -> float:
    return abs(shift[0])
