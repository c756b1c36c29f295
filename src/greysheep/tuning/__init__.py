"""A search over the settings of one model on validation rows."""
