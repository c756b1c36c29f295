"""The machine, its files and its processes; nothing here knows about recommendation."""
