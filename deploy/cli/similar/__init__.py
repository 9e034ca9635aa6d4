"""Commands that compare images: search, compare, duplicates."""
