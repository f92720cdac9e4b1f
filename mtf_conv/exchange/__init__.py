"""Checkpoints for other libraries: Hugging Face's folders, and back."""
