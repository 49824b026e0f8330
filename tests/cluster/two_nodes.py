"""A cluster of two nodes, for as long as standard input is open; says its address and the process
of the second node's raylet.

The second node says that it has two GPUs; nothing here computes on them.
"""

import sys


def main() -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    second = made.add_node(num_cpus=1, num_gpus=2, resources={"accelerator_type:A10G": 1})
    print(made.address, second.all_processes["raylet"][0].process.pid, flush=True)
    sys.stdin.read()
    made.shutdown()


if __name__ == "__main__":
    main()
