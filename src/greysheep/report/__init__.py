"""Parts of a report: numbers and sentences, drawings, the page around them, and its sections."""
