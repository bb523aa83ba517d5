#!/bin/bash
# A stand-in for the entry point of NVIDIA's images, which prepares CUDA and then runs what it is given. The stand-ins for
# the builder and the library refuse to work where it was passed over.
export STAND_IN_CUDA=prepared
exec "$@"
