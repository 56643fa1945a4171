"""How dates are written: one format everywhere, the time always with its zone."""
