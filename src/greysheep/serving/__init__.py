"""Lists over HTTP: one model folder, watched and swapped while requests are answered."""
