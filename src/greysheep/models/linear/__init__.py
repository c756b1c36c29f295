"""Models solved in closed form or by counting: popular, item-kNN, EASE, iALS."""
