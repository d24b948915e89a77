"""The model API: thin translations of /generate, /tokenize and the like into what engines speak."""
