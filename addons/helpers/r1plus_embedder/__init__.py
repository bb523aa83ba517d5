"""The tenant's embedder: texts in, vectors out, over a Unix socket, in a container of the gateway's pod.

A small process keeps the socket and the queue. The engine runs in a child: started at the first request, ended after an
idle time, and replaced when it dies or overruns, so that no text stops what serves the others.
"""
