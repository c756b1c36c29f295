"""What a model or another library's lists are worth, group by group: the record, its text and its numbers."""
