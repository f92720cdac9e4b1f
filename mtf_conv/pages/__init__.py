"""The writers of the pages of docs/ that are made from counts."""
