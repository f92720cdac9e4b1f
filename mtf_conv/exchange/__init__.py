"""Checkpoints for other libraries: Hugging Face's folders, and back."""

# All but modeling_mtf_conv, which needs torch: it is for the folders of others.
__all__ = ['card', 'description', 'hugging_face', 'names', 'tokenizer']
