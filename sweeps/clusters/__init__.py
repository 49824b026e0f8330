"""Clusters: files for AWS, ssh hosts, Kubernetes and Slurm; connection, capacity, shared folder."""
