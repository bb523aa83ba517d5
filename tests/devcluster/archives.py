"""The value that the cluster imports, under a name that its callers need not look for among the image builders."""

from devcluster.images.recipe import Image

__all__ = ["Image"]
