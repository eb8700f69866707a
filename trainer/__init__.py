"""A manifest of prepared examples becomes trained weights."""
