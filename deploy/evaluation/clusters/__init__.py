"""How well groups of similar images are people."""

from lookalike.deploy.evaluation.clusters.measure import Clustering, cluster_table, measure_clusters

__all__ = ["Clustering", "cluster_table", "measure_clusters"]
