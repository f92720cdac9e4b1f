"""Used by all other rooms: errors, files, the terminal, the network, gin."""
