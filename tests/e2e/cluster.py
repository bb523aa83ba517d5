"""`make e2e-cluster`: start the cluster that the end-to-end tests find, while other tests run.

With the KUBECONFIG of a cluster of your own there is nothing to start.
"""

from devcluster import kubeconfig
from devcluster.cluster import Cluster
from devcluster.steps import Steps
from e2e import parts


def main() -> None:
    """Build what is missing, start the cluster and bring the images into it."""
    if kubeconfig.of_ones_own():
        return
    steps = Steps(1)
    built = parts.build(steps)
    cluster = Cluster.up(steps, list(built.own), wait=False)
    with steps.step("images of r1plus into the cluster"):
        cluster.import_images(built.archives)
    cluster.wait_for_system_pods(steps)


if __name__ == "__main__":
    main()
