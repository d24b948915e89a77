"""A stand-in for a model server: real HTTP, OpenAI's routes, and every fault one may want to rehearse."""
