"""Checkpoints for other libraries: Hugging Face's folders, and back."""

# modeling_mtf_conv goes into the folders that are written: it imports torch.
__all__ = ['card', 'description', 'hugging_face', 'names']
