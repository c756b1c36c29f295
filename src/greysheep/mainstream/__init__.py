"""How mainstream each user is, and the groups that follow from it."""
