"""Groups of similar items of a collection: found, stored with the items, named and merged."""

from lookalike.searcher.clusters.grouping import cluster_vectors
from lookalike.searcher.clusters.neighbors import nearest
from lookalike.searcher.clusters.stored import (
    DEFAULT_THRESHOLD,
    Cluster,
    ClusterReport,
    cluster_collection,
    collection_threshold,
    default_threshold,
    merge_clusters,
    name_cluster,
)

__all__ = [
    "DEFAULT_THRESHOLD",
    "Cluster",
    "ClusterReport",
    "cluster_collection",
    "cluster_vectors",
    "collection_threshold",
    "default_threshold",
    "merge_clusters",
    "name_cluster",
    "nearest",
]
