"""The role ``tunnels``: local ends on this host of replicas on networks that only an SSH login leads to.

One ``ssh`` for each host that a pool names, all forwards of it over that one connection. The processes of ``ssh``
outlive the role: killed, it finds them again and traffic goes on meanwhile.
"""
