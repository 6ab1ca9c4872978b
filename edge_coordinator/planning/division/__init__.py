"""How a cluster divides its link and its samples, where computing and transfers overlap."""
