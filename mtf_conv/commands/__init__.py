"""The verbs of mtf_conv, a module for each: its flags and its work."""
