"""Models for other libraries: Hugging Face's folders and back, SavedModels."""

# All but modeling_mtf_conv, which needs torch: it is for the folders of others.
__all__ = ['card', 'description', 'hugging_face', 'names', 'saved_model',
           'tokenizer']
