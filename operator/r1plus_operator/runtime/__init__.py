"""A small controller runtime: API client, reflectors, work queue.

It knows nothing of R1+ (import-linter holds that). The parts, from the wire upwards:

    connection   where the API server is and how to prove who we are
    client       one request at a time, errors as a tree (errors)
    reflector    a kind's objects kept in memory (store), whatever happens to the connection
    queue        which keys need a pass, and the workers that make them
"""
