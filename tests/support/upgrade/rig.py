"""What this package takes from the rigs of other tests: the one place that names where they lie."""

from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.rights import grant_operator as grant
from support.apiserver.server import install_crd
from support.apiserver.tenant import Tenant
from support.golden_suites import ITEMS, NAME, files_of

__all__ = ["ITEMS", "NAME", "Monitors", "OperatorProcess", "Tenant", "files_of", "grant", "install_crd"]
