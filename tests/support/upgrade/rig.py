"""What this package takes from the rigs of other tests: the one place that names where they lie."""

from apiserver.crds import install_crd
from apiserver.operator_rig import OperatorProcess, Tenant, grant
from unit.contract.suites import ITEMS, NAME, files_of

__all__ = ["ITEMS", "NAME", "OperatorProcess", "Tenant", "files_of", "grant", "install_crd"]
