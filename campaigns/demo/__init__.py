"""A first campaign against the sandbox: invented people, real code paths."""
