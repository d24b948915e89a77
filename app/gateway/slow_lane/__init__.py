"""The slow lane: reads the bodies whose model HAProxy is not sure of, and sends them on through the inside door.

It has no database: what is routed where and who may ask what it reads from the files that the agent writes for HAProxy.
"""
