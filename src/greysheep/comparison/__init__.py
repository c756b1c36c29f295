"""Parts of `greysheep.comparison`: texts of models, folder, progress, tables and sentences."""
