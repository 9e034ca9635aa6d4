"""How searches behave: are probabilities right, groups of people treated alike, small faces found?"""

from lookalike.deploy.evaluation.searches.groups import (
    BRIGHTNESS,
    GroupFigures,
    attribute_groups,
    brightness_groups,
    measure_groups,
)
from lookalike.deploy.evaluation.searches.hits import SearchReliability, measure_searches
from lookalike.deploy.evaluation.searches.small_queries import SmallQueries, measure_small_queries

__all__ = [
    "BRIGHTNESS",
    "GroupFigures",
    "SearchReliability",
    "SmallQueries",
    "attribute_groups",
    "brightness_groups",
    "measure_groups",
    "measure_searches",
    "measure_small_queries",
]
