"""Check your own parts against their contracts: conformance classes for pytest.

Subclass the class of a part, name the part, and let pytest collect the subclass:

    from stepfront.testing import SolverConformance

    class TestMySolver(SolverConformance):
        solver = "my_package.solvers:euler"

Our own parts pass the same tests.  docs/plugins.md has an example of each part.
"""

from stepfront.testing.features import FeaturesConformance
from stepfront.testing.formats import DatasetFormatConformance
from stepfront.testing.networks import NetworkFamilyConformance
from stepfront.testing.proxies import ProxyConformance
from stepfront.testing.scores import ScoreConformance
from stepfront.testing.solvers import SolverConformance

__all__ = [
    "DatasetFormatConformance",
    "FeaturesConformance",
    "NetworkFamilyConformance",
    "ProxyConformance",
    "ScoreConformance",
    "SolverConformance",
]
