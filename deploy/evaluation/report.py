"""Figures as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["retrieval_table", "verification_table"]

Told = Sequence[Mapping[str, Any]]


def retrieval_table(told: Told) -> str:
    """Return lines of what :meth:`Retrieval.to_json` says, with name and people."""
    width = max(4, *(len(row["name"]) for row in told))
    head = f"{'queries':>8} {'others':>8} {'Recall@1':>9} {'Recall@5':>9} {'mAP':>7}"
    lines = [f"{'row':<{width}}  {'people':<10} {head}"]
    lines += [
        f"{row['name']:<{width}}  {row['people']:<10} {row['queries']:>8} {row['others']:>8} "
        f"{row['recall_at_1']:>9.3f} {row['recall_at_5']:>9.3f} {row['mean_average_precision']:>7.3f}"
        for row in told
    ]
    return "\n".join(lines)


def verification_table(told: Told) -> str:
    """Return lines of rows with name, held and all, each as a Verification's JSON says."""
    width = max(4, *(len(row["name"]) for row in told))
    over = (f"{part}: {told[0][part]['folds']} folds" for part in ("held", "all"))
    columns = f"{'accuracy':>15} {'AUC':>6} {'TAR@1%':>7}"
    lines = [
        f"{'':<{width}}  " + "  ".join(f"{text:>30}" for text in over),
        f"{'row':<{width}}  {columns}  {columns}",
    ]
    lines += [
        f"{row['name']:<{width}}  " + "  ".join(_verified(row[part]) for part in ("held", "all"))
        for row in told
    ]
    return "\n".join(lines)


def _verified(part: Mapping[str, Any]) -> str:
    accuracy = f"{part['accuracy']:.3f} ± {part['standard_error']:.3f}"
    return f"{accuracy:>15} {part['auc']:>6.3f} {part['tar_at_far_1_percent']:>7.3f}"
