"""No defense: everything crosses as it is."""

from pplr_audit.threat_model.defense import Defense


class Undefended(Defense):
    """Does nothing, so that an undefended run is one more row of the plan."""

    name = "none"
