"""How an engine is asked for tokens and text, and what its answers mean. Pure: values in, values out, no network."""
