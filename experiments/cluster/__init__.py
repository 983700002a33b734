"""What a search on a cluster is started with; docs/cluster.md says how."""
