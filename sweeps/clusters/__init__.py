"""Clusters:
files for AWS, ssh hosts, Kubernetes and Slurm; joining one, its capacity, its shared folder.
"""
